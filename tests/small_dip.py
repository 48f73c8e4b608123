"""`python -m experiments.dip` with a network of one scale that compiles in seconds, as a program.

For tests of what happens to processes: python -m tests.small_dip OPTIONS...
"""

import functools
import sys

import jax

from experiments import command, dip, folder, networks

if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    folder.APART = 0.0
    networks.prior = functools.partial(networks.prior, down=(4,), up=(4,), skip=(2,))
    sys.exit(command.main(dip.Settings, dip.run))
