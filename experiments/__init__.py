"""One command line a question: each parses, loads, calls jaxsr and reports."""

import signal
import sys

# `python -m experiments.dip` looks for its module now. Ctrl-C while that is imported: no traceback.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
