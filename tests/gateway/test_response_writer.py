"""Whatever the parts of an answer are, the events of a response tell what the response has in the end."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.gateway.answer import Arguments, CallStart
from hermes.gateway.reply import HEARTBEAT
from hermes.gateway.response_writer import ResponseWriter

texts = st.text(max_size=5)
values = st.recursive(texts | st.integers(), lambda inner: st.dictionaries(texts, inner, max_size=2), max_leaves=5)
calls = st.tuples(st.sampled_from(["clock", "patch"]), st.dictionaries(texts, values, max_size=2))
answers = st.lists(texts.filter(bool) | calls, max_size=4)


def parts_of(answer, cuts):
    """The parts of an answer, whose arguments are cut into pieces, with signs of life between them."""
    for said in answer:
        if isinstance(said, str):
            yield from (said, HEARTBEAT)
            continue
        name, arguments = said
        yield CallStart(name)
        text, at = json.dumps(arguments), 0
        for cut in [*sorted(cut % len(text) for cut in cuts), len(text)]:
            yield from (HEARTBEAT, Arguments(text[at:cut], is_last=cut == len(text)))
            at = cut


def events_of(answer, cuts, stop):
    writer = ResponseWriter(b'"model":"m"', frozenset({"patch"}))
    parts = list(parts_of(answer, cuts))[:stop]
    written = [text for part in parts for text in writer.take(part)] + writer.close("incomplete")
    return [json.loads(text.partition("data: ")[2]) for text in written], writer.output


@settings(deadline=None)  # other tests run beside it
@given(answers, st.lists(st.integers(0, 99), max_size=3), st.integers(0, 20))
def test_the_events_tell_what_the_response_has(answer, cuts, stop):
    events, output = events_of(answer, cuts, stop)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for index, item in enumerate(output):
        own = [event for event in events if event.get("output_index") == index]
        assert (own[0]["type"], own[-1]["type"]) == ("response.output_item.added", "response.output_item.done")
        assert own[-1]["item"] == item
        text = "".join(event.get("delta", "") for event in own)
        assert text == (item.get("arguments", item.get("input")) if "name" in item else item["content"][0]["text"])
    assert sum(event["type"] == "response.output_item.done" for event in events) == len(output)


@settings(deadline=None)  # other tests run beside it
@given(answers, st.lists(st.integers(0, 99), max_size=3))
def test_a_call_is_done_when_it_is_whole(answer, cuts):
    _, output = events_of(answer, cuts, None)
    whole = [item for item in output if item["type"] == "function_call"]
    assert [json.loads(item["arguments"]) for item in whole] == [said[1] for said in answer if said[0] == "clock"]
    assert all(item["status"] == "completed" for item in whole)
