"""What holds for every test."""

import signal

# A shell that runs the tests in the background makes them deaf to Ctrl-C, and whatever they start; some send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
