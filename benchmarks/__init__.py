"""How fast jaxsr is, against what, and how that is timed."""

import signal
import sys

_untouched = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _untouched and sys.argv[0] == "-m":  # `python -m benchmarks.dip`, which looks for its module now
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while it is imported: no traceback
