"""Checkpoints of a whole state with Orbax: written whole or not at all, the latest always kept."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import zlib
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxsr import storage
from jaxsr.errors import InputError, require_integers, within_memory
from jaxsr.files import atomic, lock
from jaxsr.quiet import quiet

Tree = TypeVar("Tree")

_CHECKSUMS = "checksums.json"
_OVERHEAD = 2**18  # bytes at most of what a checkpoint holds beside its arrays


class Checkpoints:
    """The last `keep` checkpoints of one run, each in a sub-folder of `folder` named by its step.

    With `keep_best` also that of the highest score, of equal ones the latest; NaN is the lowest. A
    context manager. A save is over when `save` returns (half a second for 27 MB): no thread is left
    that would read buffers which the next call donates. What an interrupted save left in `folder`
    is removed on opening, unless it is opened `read_only`: another may be writing. With several
    processes, all of them call every method, unless `alone`: folder and arrays are then this
    process's own.

    Raises:
      InputError: `keep` is no integer from 1, or `folder` cannot be opened or made, has a name that
        the checkpoints' library does not take, or is open to write in another process.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int = 2,
        keep_best: bool = False,
        read_only: bool = False,
        alone: bool = False,
    ) -> None:
        require_integers(keep=keep)
        self.folder = pathlib.Path(folder).absolute()
        storage.require_path(self.folder)
        self._keep_best = keep_best
        self._alone = alone and jax.process_count() > 1
        self._leads = alone or jax.process_index() == 0
        policies = ocp.checkpoint_managers
        processes = ocp.options.MultiprocessingOptions()
        if self._alone:
            me = jax.process_index()
            processes = ocp.options.MultiprocessingOptions(
                primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
            )
        latest = policies.LatestN(keep)
        best = policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([latest, best])
            if keep_best
            else latest,
            best_fn=_score if keep_best else None,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=False,  # made below
            save_interval_steps=0 if read_only else 1,
            enable_async_checkpointing=False,
            multiprocessing_options=processes,
        )
        self._lock: int | None = None
        try:
            if not read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
                if self._leads:
                    self._lock = lock(self.folder)
            with quiet:
                self._manager = ocp.CheckpointManager(
                    self.folder,
                    options=options,
                    item_handlers=ocp.StandardCheckpointHandler(multiprocessing_options=processes),
                )
        except Exception as error:
            self._unlock()
            raise InputError(f"`{folder}` cannot hold checkpoints: {_reason(error)}") from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases what Orbax holds, and the folder. Checkpoints stay."""
        with quiet:
            self._manager.close()
        self._unlock()

    def _unlock(self) -> None:
        held, self._lock = self._lock, None
        if held is not None:
            os.close(held)

    def latest_step(self) -> int | None:
        """The step of the latest checkpoint, sound or not; None where there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the highest score; None without `keep_best` or a score."""
        return self._manager.best_step() if self._keep_best else None

    def save(self, step: int, tree: Any, *, score: float | None = None) -> None:
        """Saves a pytree of arrays, typed PRNG keys among them, and drops what is too old.

        The latest step is not written a second time: it is the same state.

        Raises:
          InputError: `step` is no integer from 0 or before the latest, a leaf is no array, the
            disk is too full, or the files cannot be written; then nothing of this step stays.
        """
        require_integers(step=step, least=0)
        arrays = storage.names(tree)
        latest = self.latest_step()
        if latest == step:
            return
        if latest is not None and step < latest:
            raise InputError(f"`step` (={step}) must be after `{self.folder / str(latest)}`")
        data = jax.tree.map(storage.stored, tree)
        self._require_room(step, data)
        # Of an array that one of several processes holds by itself Orbax writes nothing.
        arguments = ocp.args.StandardSave(jax.tree.map(np.asarray, data) if self._alone else data)
        try:
            with quiet:
                self._manager.save(
                    step,
                    args=arguments,
                    metrics=None if score is None else {"score": float(score)},
                    custom_metadata={"arrays": arrays},
                )
        except Exception as error:
            for unfinished in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            what = f"`{self.folder / str(step)}` cannot be written: {_reason(error)}"
            raise InputError(what) from error
        if self._leads:  # of several processes each wrote its part, and is done
            try:
                with atomic(self.folder / str(step) / _CHECKSUMS) as temporary:
                    temporary.write_text(json.dumps(self._checksums(step), indent=1) + "\n")
            except InputError:
                shutil.rmtree(self.folder / str(step), ignore_errors=True)
                self._manager.reload()
                raise

    def _require_room(self, step: int, data: Any) -> None:
        """Refuses a full disk before TensorStore does, whose threads would write to the terminal.

        Raises:
          InputError: less is free than the arrays take.
        """
        needed, free = sum(x.nbytes for x in jax.tree.leaves(data)) + _OVERHEAD, math.inf
        with contextlib.suppress(OSError):  # no such folder any more: Orbax may make it anew
            free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise InputError(
                f"`{self.folder / str(step)}` cannot be written: it takes {needed / 1e6:.1f} MB, "
                f"and {free / 1e6:.1f} are free"
            )

    def restore(self, like: Tree, *, step: int | None = None) -> Tree:
        """The tree saved at `step` (by default the latest), bit for bit.

        Args:
          like: the tree to fill, of arrays or `jax.ShapeDtypeStruct`s; names, shapes and dtypes
            must be as saved. Each array goes where its counterpart's `sharding` says, or else to
            the default device; NumPy arrays come back as such.

        Raises:
          InputError: there is no such checkpoint; it is damaged, or too large for the memory; or it
            is of another tree, or of doubles that JAX would narrow. It is left as it is, and no
            earlier one is taken in its place: that is the user's choice.
        """
        names = storage.names(like)
        step = self.latest_step() if step is None else step
        if step is None or step not in self._manager.all_steps():
            what = "checkpoint" if step is None else f"checkpoint of step {step}"
            raise InputError(f"`{self.folder}` holds no {what}")
        where = f"`{self.folder / str(step)}`"
        try:
            with within_memory(where):
                saved = self._saved(step)
            for name in (*names, *saved):
                if saved.get(name) != names.get(name):
                    ours, theirs = names.get(name, "nothing"), saved.get(name, "nothing")
                    rule = f"must hold {ours} as `{name}`: it holds {theirs}"
                    raise InputError(f"{where}, a checkpoint of another state, {rule}")
            with quiet, within_memory(where):
                target = jax.tree.map(storage.host_target if self._alone else storage.target, like)
                arguments = ocp.args.StandardRestore(target)
                found = self._manager.restore(step, args=arguments)
                return jax.tree.map(storage.restored, like, found)
        except InputError:
            raise
        except Exception as error:  # Orbax and TensorStore raise all kinds on damaged files
            earlier = [other for other in self._manager.all_steps() if other < step]
            then = f"go on from step {max(earlier)}" if earlier else "start afresh"
            raise InputError(
                f"{where} cannot be restored, {_reason(error)}: delete that folder to {then}"
            ) from error

    def _checksums(self, step: int) -> dict[str, int]:
        root = self.folder / str(step)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): zlib.crc32(path.read_bytes()) for path in files}

    def _saved(self, step: int) -> dict[str, str]:
        """The names of a checkpoint that is whole.

        Finds damage before TensorStore does, whose threads would write to the terminal.

        A run killed after Orbax's commit and before the sums are there leaves a good checkpoint.
        """
        record = self.folder / str(step) / _CHECKSUMS
        if record.exists():
            found = self._checksums(step)
            for name, checksum in json.loads(record.read_text()).items():
                if found.get(name) != checksum:
                    how = "damaged" if name in found else "missing"
                    raise ValueError(f"`{name}` in it is {how}")
        with quiet:
            saved = (self._manager.metadata(step).custom_metadata or {}).get("arrays")
        if saved is None:
            raise ValueError("it is not a complete checkpoint of this program")
        return dict(saved)


def _score(metrics: dict[str, float]) -> float:
    score = metrics["score"]
    return -math.inf if math.isnan(score) else score  # NaN would upset the order of the others


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."
