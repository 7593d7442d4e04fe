import signal
import sys

from hermes.cli import main

for each in (
    signal.SIGINT,
    signal.SIGTERM,
):  # both end the server too; a shell's background jobs start with SIGINT ignored
    signal.signal(each, signal.default_int_handler)

sys.exit(main())
