"""A health check for Docker, Compose and Kubernetes: exits with 0 while the server takes predictions, else with 1.

`python hermes/serving/ready.py`, in the folder of the server. coglet answers /health-check with 200 in every state.
"""

import json
import os
import sys
from urllib.request import ProxyHandler, build_opener

READY = ("READY", "BUSY")  # BUSY: all slots are taken


def main() -> int:
    """The exit status. A server that does not listen raises URLError, which is 1, too."""
    directly = build_opener(ProxyHandler({}))  # whatever HTTP_PROXY says
    with directly.open(f"http://127.0.0.1:{os.environ.get('PORT', '5000')}/health-check", timeout=4) as response:
        return int(json.load(response)["status"] not in READY)


if __name__ == "__main__":
    sys.exit(main())
