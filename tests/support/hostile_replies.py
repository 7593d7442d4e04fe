"""Hostile servers send these predictions. The client responds, or fails with an error of one line."""

from contextlib import contextmanager

from hypothesis import event
from hypothesis import strategies as st

from hermes.client import PredictionFailed
from hermes.client.errors import MAX_REASON
from tests.support.hostile import anything, clean, sometimes

finish_reasons = sometimes(st.sampled_from(["stop", "length", "tool_calls"]))
calls = sometimes(st.fixed_dictionaries({"name": sometimes(st.just("add")), "arguments": sometimes(st.just({"a": 1}))}))
mistakes = sometimes(st.fixed_dictionaries({"name": sometimes(st.none()), "text": clean, "problem": sometimes(clean)}))
metrics = st.fixed_dictionaries(
    {"finish_reason": finish_reasons},
    optional={
        "tool_calls": sometimes(st.lists(calls, max_size=3)),
        "tool_call_errors": sometimes(st.lists(mistakes, max_size=2)),
        "json_valid": sometimes(st.booleans()),
        "text": anything,
        "metrics": anything,
    },
)
predictions = st.fixed_dictionaries(
    {"status": sometimes(st.sampled_from(["succeeded", "succeeded", "failed", "canceled"]))},
    optional={"metrics": sometimes(metrics), "error": sometimes(clean), "output": anything},
) | st.fixed_dictionaries({"status": st.just("succeeded"), "metrics": metrics})


def one_line(error):
    text = str(error)
    assert len(text.splitlines()) <= 1
    assert len(text) <= MAX_REASON + 60
    text.encode()


@contextmanager
def answered_or_failed():
    try:
        yield
        event("answered")
    except PredictionFailed as error:
        event(type(error).__name__)
        one_line(error)
