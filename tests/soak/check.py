"""What a soak finds out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One check of the report. `holds` is None if the run was too short."""

    what: str
    holds: bool | None
    seen: str
