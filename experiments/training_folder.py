"""The folder of one training: what is written when, and how a stopped one is taken up again."""

import contextlib
import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from experiments.record import as_config, claim, prepare, read_config, read_metrics, whole
from jaxsr import plots, pretrained, reports, training
from jaxsr.checkpoints import Checkpoints
from jaxsr.errors import InputError
from jaxsr.models.luma import Network
from jaxsr.options import option

# What may differ when a training is taken up again; the images are known by their pixels.
_FREE = ("out", "data", "test", "manual_dir", "device")
RECORDS = ("metrics.json", "curve.png")
_OWN = ("coordinator", "process")  # of one process


def require_finished(folder: pathlib.Path, **settings: Any) -> None:
    """Refuses the folder of a training that goes on, or had other settings than these.

    Of a folder that no training left, of imported weights say, nothing is known.

    Raises:
      InputError: it is one, or its records are damaged.
    """
    config = read_config(folder)
    if not config:
        return
    for name, value in settings.items():
        if config.get(name, value) != value:  # early ones do not name all
            rule = f"(={config[name]}), not {value}"
            raise InputError(f"`{folder}` was trained with {option(name)} {rule}")
    if read_metrics(folder).get("epochs") != config.get("epochs"):
        raise InputError(f"the training in `{folder}` is not finished: give its command again")


class TrainingFolder:
    """The output folder of `experiments.lapsrn`; a context manager.

    Opening it refuses a folder of other settings. Of several processes all open it, on one file
    system; the first speaks and reports.

    Args:
      settings: of the experiment, resolved.
      digests: of the training images and, where there are any, of the test images.

    Raises:
      InputError: the folder holds something else, or cannot be written.
    """

    compile_seconds: float = 0.0

    def __init__(self, settings: Any, digests: dict[str, str | None]) -> None:
        self.path: pathlib.Path = settings.out
        self.leads = jax.process_index() == 0
        self._settings = settings
        is_tested = digests["test_sha256"] is not None
        columns = ["loss", "learning_rate", "images_per_second", *(["psnr"] if is_tested else [])]
        self._history: dict[str, np.ndarray] = {name: np.zeros(0, np.float32) for name in columns}
        config = {k: v for k, v in as_config(settings).items() if k not in _OWN} | digests
        defaults = as_config(type(settings)())
        prepare(self.path, config, free=_FREE, grows="epochs", absent=defaults)
        with contextlib.ExitStack() as closing:
            checkpoints = Checkpoints(self.path / "checkpoints", keep_best=is_tested)
            self._checkpoints = closing.enter_context(checkpoints)
            claim(self.path, config)
            closing.pop_all()

    def __enter__(self) -> "TrainingFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpoints.close()

    def finished(self) -> bool:
        """Whether a report of all epochs is there."""
        return read_metrics(self.path).get("epochs") == self._settings.epochs

    def restore(self, like: training.State, sharding: Sharding) -> training.State | None:
        """The state after the latest epoch kept, lying as `sharding` says; None before the first.

        Args:
          like: the state's shapes.
          sharding: of every array in it.
        """
        epoch = self._checkpoints.latest_step()
        if epoch is None:
            return None
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like
        )
        history = {name: np.zeros(epoch, np.float32) for name in self._history}
        tree = self._checkpoints.restore({"state": placed, "history": history})
        self._history = tree["history"]
        self.say(f"resuming {self.path} after epoch {epoch}")
        return tree["state"]

    def keep(
        self, epoch: int, state: training.State, model: Network, row: dict[str, float]
    ) -> None:
        """The checkpoint, the network and the history after an epoch."""
        self._history = {
            name: np.append(values, np.float32(row[name])) for name, values in self._history.items()
        }
        if self.leads:
            for record in RECORDS:  # of fewer epochs
                (self.path / record).unlink(missing_ok=True)
        # The checkpoint comes last: after a kill, what it does not hold is written again.
        pretrained.save(self.path, model, state.variables)
        if self.leads:
            reports.write_csv(self.path / "history.csv", self._history, count="epoch")
        tree = {"state": state, "history": self._history}
        self._checkpoints.save(epoch, tree, score=row.get("psnr"))

    def say(self, line: str) -> None:
        """A line on the terminal, of the first process alone."""
        if self.leads:
            print(line)

    def write_report(self, environment: dict[str, Any]) -> None:
        """The curve and, last, the metrics: they mark the training as finished."""
        if not self.leads:
            return
        history = self._history
        shown = {"psnr": "test images"} if "psnr" in history else {"loss": "loss"}
        plots.curves(
            self.path / "curve.png",
            {self.path.name: history},
            columns=shown,
            ylabel="PSNR (dB), luma" if "psnr" in history else "loss",
            xlabel="epoch",
        )
        best = {}
        if "psnr" in history:
            known = np.nan_to_num(history["psnr"], nan=-np.inf, neginf=-np.inf, posinf=np.inf)
            epoch = len(known) - int(np.argmax(known[::-1]))
            best = {"epoch": epoch, "psnr": history["psnr"][epoch - 1]}
        record = {
            "epochs": self._settings.epochs,
            "loss": history["loss"][-1],
            "psnr": history["psnr"][-1] if best else None,
            "psnr_description": "mean over the test images; luma (BT.601 studio range) in float, "
            "shave by the factor; LR by MATLAB bicubic, not rounded",
            "oracle_best": best or None,
            "images_per_second": np.median(history["images_per_second"]),
            "compile_seconds": self.compile_seconds,
            **environment,
            "settings": as_config(self._settings),
        }
        reports.write_json(self.path / "metrics.json", record)

        self.say(self.summary())

    def summary(self) -> str:
        """One line: how far it came, and where the files are.

        Raises:
          InputError: the metrics are damaged.
        """
        metrics, quality = read_metrics(self.path), ""
        with whole(self.path):
            if metrics["psnr"] is not None:
                quality = f"PSNR {float(metrics['psnr']):.3f} dB ({metrics['psnr_description']}), "
            length = f"{metrics['epochs']} epoch{'s' * (metrics['epochs'] != 1)}"
            return f"{quality}{length}, loss {float(metrics['loss']):.5f}, files in {self.path}"
