"""The gateway's bearer tokens, each with the name of the person or program that has it.

An entry is `name:token`, `name:sha256:<64 hex digits>`, or a bare token. A file has one a line, with # before comments.
The gateway keeps digests only. Tokens are random, so their SHA-256 needs no salt and no slow hash.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from hermes.errors import InvalidConfiguration

PREFIX = "HERMES_GATEWAY_"
TOKENS = f"{PREFIX}TOKENS"
TOKENS_FILE = f"{TOKENS}_FILE"  # as the official images on Docker Hub name it
VARIABLES = (TOKENS, TOKENS_FILE, *(f"{PREFIX}{each}" for each in ("BIND", "PORT", "PUBLIC_URL")))  # three of Compose
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
HASHED = "sha256"
DIGEST = re.compile(r"[0-9A-Fa-f]{64}")


def find_tokens(file: str | Path | None = None) -> tuple[str, ...]:
    """The entries in HERMES_GATEWAY_TOKENS, comma-separated, or in the file that HERMES_GATEWAY_TOKENS_FILE names.

    `file`, of the option --tokens-file, replaces the second variable. /dev/null has no tokens, and any other file
    without tokens is a mistake.

    Raises InvalidConfiguration if both have tokens, if the file cannot be read or has none, or a variable is misspelt.
    """
    for other in os.environ:
        if other.startswith(PREFIX) and other not in VARIABLES:
            raise InvalidConfiguration(other, f"there is no such setting; there are {', '.join(VARIABLES)}")
    tokens = _entries(os.environ.get(TOKENS, "").replace(",", "\n"))
    option = TOKENS_FILE if file is None else "--tokens-file"
    in_file: tuple[str, ...] = ()
    if name := os.environ.get(TOKENS_FILE, "") if file is None else str(file):
        try:
            in_file = _entries(Path(name).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InvalidConfiguration(
                option, f"user {os.geteuid()} cannot read {name}: {reason}; name a file that it can read"
            ) from None
        if any("," in entry for entry in in_file):
            raise InvalidConfiguration(option, f"{name} has a comma; put one token on each line, without commas")
        if not in_file and not Path(name).is_char_device():
            raise InvalidConfiguration(option, f"{name} has no token; put one on each line")
    if tokens and in_file:
        raise InvalidConfiguration(option, f"{TOKENS} is set, too; unset one of them")
    return tokens or in_file


def _entries(text: str) -> tuple[str, ...]:
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def names_of(entries: Iterable[str]) -> Mapping[bytes, str]:
    """The name of each token, by the token's SHA-256. Two tokens may have one name, while the old one is replaced.

    Raises InvalidConfiguration, without the token, if an entry cannot be read, or if one token has two names.
    """
    names: dict[bytes, str] = {}
    for number, entry in enumerate(entries, 1):
        digest, name = _read(entry, f"entry {number}")
        if names.setdefault(digest, name) != name:
            raise _invalid(f"entry {number}: this token is also that of {names[digest]}; give each name its own")
    return names


def digest_of(token: bytes) -> bytes:
    """The SHA-256 of a token that a caller sends.

    A dict may look it up, which takes no constant time: that leaks at most how a digest compares with another one. A
    caller who cannot invert SHA-256 cannot turn this into a better guess of the token.
    """
    return hashlib.sha256(token).digest()


def _read(entry: str, place: str) -> tuple[bytes, str]:
    name, colon, rest = (part.strip() for part in entry.partition(":"))
    if len((rest if colon else name).split()) > 1:
        raise _invalid(f"{place} has a blank in its token; a comment stands on a line of its own")
    if not colon:
        digest = digest_of(entry.encode())
        return digest, f"token-{digest.hex()[:8]}"
    if not NAME.fullmatch(name) or not rest:
        raise _invalid(f"{place} is not name:token; a name is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'")
    kind, colon, digits = (part.strip() for part in rest.partition(":"))
    if name == HASHED or (kind == HASHED and colon and not DIGEST.fullmatch(digits)):
        raise _invalid(f"{place} is not name:{HASHED}:DIGEST, with the 64 hexadecimal digits that sha256sum prints")
    return (bytes.fromhex(digits) if kind == HASHED and colon else digest_of(rest.encode())), name


def _invalid(problem: str) -> InvalidConfiguration:
    return InvalidConfiguration("tokens", problem)
