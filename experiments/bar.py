"""What a fit shows on the terminal while it runs."""

import tqdm

from jaxsr import dip


class Bar:
    """A progress bar over iterations: rate, time left, loss and, where known, PSNR."""

    def __init__(self, bar: tqdm.tqdm) -> None:
        self._bar = bar

    def show(self, progress: dip.Progress) -> None:
        """Advance to the progress's last iteration."""
        last = {name: column[-1] for name, column in progress.history.items()}
        shown = {"loss": f"{last['loss']:.5f}"}
        if "psnr" in last:
            shown["psnr"] = f"{last['psnr']:.2f} dB"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(int(progress.state.step) - self._bar.n)
