"""How fast jaxsr is, against what, and how that is timed."""

import signal
import sys

if sys.argv[0] == "-m":  # `python -m benchmarks.dip`, which looks for its module now
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while it is imported: no traceback
