"""Serves the model in a folder as the hub does, and its archive, until its input ends.

    python -m tests.support.host FOLDER

Its URL goes to standard output. The server is that of the tests, without faults: files go out by sendfile.
"""

import sys
from pathlib import Path

from tests.support.hub_server import HubServer

REPO, ARCHIVE = "bench/model", "/model.tar"

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with HubServer() as server:
        server.add_repo(REPO, {path.name: path for path in (folder / "model").iterdir()}, lfs=("*.safetensors",))
        server.add_file(ARCHIVE, folder / "model.tar")
        print(server.url, flush=True)
        sys.stdin.read()
