"""Ask pip-audit for known vulnerabilities of the packages pinned in requirements files. `make audit` runs this.

pip-audit passes over packages that its database does not answer for, and says "No known vulnerabilities found" all the
same. Here that is no success. Exit code 0: each was looked up and none is known to be vulnerable; 1: some are; 3: not
each was looked up.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 3
OPTIONS = ("--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")


def main(files: Sequence[str]) -> int:
    program = str(Path(sys.executable).with_name("pip-audit"))
    asked = [program, *OPTIONS, *(f"--requirement={file}" for file in files)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    code, lines = verdict(done.stdout, done.stderr)
    print("\n".join(lines))
    return code


def verdict(out: str, log: str) -> tuple[int, list[str]]:
    """The exit code, and what to say, of what pip-audit wrote."""
    if not out:
        reason = (log.strip().splitlines() or ["it said nothing"])[-1]
        return NOT_AUDITED, [f"nothing was audited: pip-audit broke off ({reason})"]
    packages = json.loads(out)["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return NOT_AUDITED, ["the database of vulnerabilities could not be reached: nothing was audited"]
    found = [line for package in packages for line in findings(package)]
    lines = [*found, f"{len(packages) - len(skipped)} packages looked up, {len(found)} known vulnerabilities"]
    if skipped:
        lines.append(f"not in the database, so not audited: {', '.join(skipped)}")
    return VULNERABLE if found else NOT_AUDITED if skipped else CLEAN, lines


def findings(package: Mapping[str, Any]) -> Iterator[str]:
    for each in package.get("vulns", ()):
        mended = ", ".join(each["fix_versions"]) or "no version yet"
        yield f"{package['name']} {package['version']}: {each['id']}, mended in {mended}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
