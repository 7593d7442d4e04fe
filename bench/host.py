"""Serves the model in a folder as the hub does, and its archive: `python -m bench.host FOLDER`, until its input ends.

Its URL goes to standard output. The server is that of the tests, without faults: files go out by sendfile.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hub_server import HubServer  # type: ignore[import-not-found]

REPO, ARCHIVE = "bench/model", "/model.tar"

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with HubServer() as server:
        server.add_repo(REPO, {path.name: path for path in (folder / "model").iterdir()}, lfs=("*.safetensors",))
        server.add_file(ARCHIVE, folder / "model.tar")
        print(server.url, flush=True)
        sys.stdin.read()
