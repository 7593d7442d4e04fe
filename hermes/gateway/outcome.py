"""What a server's last event says of a prediction. A server is not trusted to have written it well."""

import re
from typing import Any

from hermes.client.cog import Json
from hermes.errors import EngineFailed, find_error
from hermes.gateway.run import Outcome, Run, Status
from hermes.text import shown

# `aborted`: canceled before it began; replicate's client does not know it
STATUSES: dict[Any, Status] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "canceled",
    "aborted": "canceled",
}
TOKEN_BYTES = 120  # of an id and its text in the metric `tokenized`, about
COUNTS = ("input_token_count", "output_token_count")
CANCELED = re.compile(r"\bcancell?(ed|ation)", re.IGNORECASE)  # Python's and Cog's names of the exception


def outcome_of(run: Run, data: Json) -> Outcome:
    """Returns how a prediction ended, from its last event. Raises EngineFailed if that has no status that is known.

    A predictor that raises when it is cancelled has `failed` for coglet; any other failure stays one after a cancel.
    """
    if (said := data.get("status")) not in STATUSES:
        raise EngineFailed(f"the server ended the prediction with the status {shown(said)}")
    status, text = STATUSES[said], text_of(data.get("error") or "")
    found = find_error(text)
    if status == "failed" and run.cancel_asked and not found and CANCELED.search(text):
        status, text = "canceled", ""
    return Outcome(
        status,
        found or text or None,
        refused=(found or "").startswith("E10"),
        metrics=_metrics(data.get("metrics")),
        logs=text_of(data.get("logs") or "") or None,
    )


def _metrics(found: Any) -> Json:
    """Returns what can be counted and written of a server's metrics."""
    if not isinstance(found, dict):
        return {}
    odd = [name for name in COUNTS if not (type(found.get(name)) is int and found[name] >= 0)]
    return {name: value for name, value in found.items() if name not in odd}


def size_of(metrics: Json) -> int:
    """Returns about how many bytes the metrics take, where they have the tokens of a prompt."""
    tokenized = metrics.get("tokenized")
    ids = tokenized.get("ids") if isinstance(tokenized, dict) else None
    return TOKEN_BYTES * len(ids) if isinstance(ids, list) else 0


def text_of(value: Any) -> str:
    """Returns a text of a server, without half characters, which cannot be sent."""
    text = str(value)
    return text if text.isascii() else text.encode(errors="replace").decode()
