"""A benchmark's command line."""

from benchmarks import peers


def main(module, args):
    """As the module's last line has it; the exit code."""
    options = {"stopped": module.STOPPED} if hasattr(module, "STOPPED") else {}
    return peers.main(module.Options, module.run, args, **options)
