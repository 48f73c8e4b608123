"""One command line a question: each parses, loads, calls jaxsr and reports."""

import signal
import sys

_untouched = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if (
    _untouched and sys.argv[0] == "-m"
):  # `python -m experiments.dip`, which looks for its module now
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while it is imported: no traceback
