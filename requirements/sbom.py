"""Write requirements/sbom.cdx.json: what the lock installs, with licences, as CycloneDX 1.6. `make sbom` runs this.

cyclonedx-py reads the environment that `make install` made. Descriptions and links of packages are left out: they are
other people's words and sites, and say nothing of what is installed. The same lock gives the same bytes.
"""

import json
import subprocess
import sys
from pathlib import Path

OUT = Path(__file__).with_name("sbom.cdx.json")
COMMAND = ("environment", "--spec-version", "1.6", "--output-reproducible", sys.executable)
LEFT_OUT = {"description", "externalReferences"}


def without_talk(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_talk(each) for key, each in value.items() if key not in LEFT_OUT}
    return [without_talk(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    program = Path(sys.executable).with_name("cyclonedx-py")
    found = subprocess.run([program, *COMMAND], stdout=subprocess.PIPE, check=True).stdout
    document = without_talk(json.loads(found))
    OUT.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
