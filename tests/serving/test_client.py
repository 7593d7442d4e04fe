from hermes.serving.client import read_events

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
