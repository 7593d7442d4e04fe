"""python -m hermes, see hermes.cli."""

import signal
import sys

from hermes.cli import main

# Both end the server, too. A shell starts its background jobs with SIGINT ignored.
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, signal.default_int_handler)

sys.exit(main())
