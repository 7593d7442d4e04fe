import pytest

from hermes.caller.cog_client import read_events, split_lines

STREAM = """\
event: start
data: {"id": "p1", "status": "processing"}

event: output
data: {"chunk": "Hé", "index": 0}

: keep-alive

event: completed
data: {"id": "p1",
data:  "status": "succeeded"}

"""


def test_events_are_read_from_lines():
    assert list(read_events(STREAM.splitlines())) == [
        ("start", {"id": "p1", "status": "processing"}),
        ("output", {"chunk": "Hé", "index": 0}),
        ("completed", {"id": "p1", "status": "succeeded"}),
    ]


def test_an_event_that_was_cut_off_is_not_given():
    assert list(read_events(["event: output", 'data: {"chunk": "a"}'])) == []


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_the_same_wherever_the_text_was_cut(end):
    text = end.join(["event: output", 'data: "\u2028 \x85 \x0c"', "", ""])
    lines = ["event: output", 'data: "\u2028 \x85 \x0c"', ""]
    for cut in range(len(text) + 1):
        assert list(split_lines([text[:cut], text[cut:]])) == lines
    assert list(split_lines(text)) == lines
