import pytest

from hermes.client import CogServer, PredictionFailed, PredictionRefused
from hermes.client.cog import read_events
from tests.support.scripted import Handler, serving
from tests.support.work import at_most

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


def test_events_are_read_from_text():
    assert list(read_events([STREAM])) == [
        ("start", {"id": "p1", "status": "processing"}),
        ("output", {"chunk": "Hé", "index": 0}),
        ("completed", {"id": "p1", "status": "succeeded"}),
    ]


def test_an_event_that_was_cut_off_is_not_given():
    assert list(read_events(['event: output\ndata: {"chunk": "a"}\n'])) == []


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("{oops", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (
            "[" * 100_000,
            "is not JSON: maximum recursion depth exceeded while decoding a JSON array from a unicode string",
        ),
        (
            "1" * 5_000,
            "is not JSON: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; ",
        ),
        ("[1]", "is no JSON object"),
        ("null", "is no JSON object"),
    ],
)
def test_an_event_whose_data_is_no_json_object_is_an_error(data, problem):
    with pytest.raises(PredictionFailed) as failed:
        list(read_events([f"event: output\ndata: {data}\n\n"]))
    assert str(failed.value).startswith(f"the server's event 'output' {problem}")


@pytest.mark.parametrize(
    ("health", "refusal"),
    [
        ({"status": "STARTING"}, (503, "the server answered 503: its status is STARTING")),
        ({"status": "READY"}, (406, "the server answered 406: no streams")),
        ([], (406, "the server answered 406: no streams")),
    ],
)
def test_a_stream_that_a_starting_server_refuses_says_so(health, refusal):
    class Starting(Handler):
        """As coglet before setup() is done."""

        def do_POST(self):  # noqa: N802
            self.body()
            self.answer({"error": "no streams"}, 406)

        def do_GET(self):  # noqa: N802
            self.answer(health)

    with serving(Starting) as url, pytest.raises(PredictionRefused) as refused:
        CogServer(url).ask({"prompt": "Hi"})
    assert (refused.value.status, str(refused.value)) == refusal


def test_a_long_line_in_small_pieces_takes_little_time():
    pieces = ["data: ", '{"x": "', *["x" * 20] * 100_000, '"}\n\n']
    with at_most(0.5, all_threads=True):
        assert list(read_events(pieces)) == [("message", {"x": "x" * 2_000_000})]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_events_are_the_same_wherever_the_text_was_cut(end):
    text = end.join(["event: output", 'data: {"chunk": "\u2028 \x85"}', "", "data: {}", "", ""])
    events = [("output", {"chunk": "\u2028 \x85"}), ("message", {})]
    for cut in range(len(text) + 1):
        assert list(read_events([text[:cut], text[cut:]])) == events
    assert list(read_events(text)) == events
