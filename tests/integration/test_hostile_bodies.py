"""coglet refuses a body that is no request, with a text. It fails a request for nothing with a code."""

import json

import pytest

from tests.support.asking import predict
from tests.support.hostile_requests import DEEP, MEGABYTE, SHORT, send

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 400, id="empty"),
        pytest.param(b"\0", 400, id="null byte"),
        pytest.param(b"null", 422, id="null"),
        pytest.param(b"[]", 422, id="list"),
        pytest.param(b'"x"', 422, id="text"),
        pytest.param(b"9" * 5000, 400, id="long number"),
        pytest.param(b'{"input": {"prompt": "Hi', 400, id="cut off"),
        pytest.param(b'{"input": {"prompt": "Hi"}} x', 400, id="more after it"),
        pytest.param(b'{"input": {"prompt": "Hi"}}{}', 400, id="two"),
        pytest.param(b'{"input": {"prompt": "\xff\xfe"}}', 400, id="no UTF-8"),
        pytest.param(b'{"input": {"prompt": "\xed\xa0\x80"}}', 400, id="a surrogate in UTF-8"),
        pytest.param(b'{"input": {"prompt": "\xc0\xaf"}}', 400, id="overlong UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"input": {"prompt": "Hi"}}', 400, id="byte order mark"),
        pytest.param('{"input": {"prompt": "Hi"}}'.encode("utf-16"), 400, id="UTF-16"),
        pytest.param(b'{"input": {"prompt": "a\0b"}}', 400, id="bare null byte in text"),
        pytest.param(b'{"input": {"prompt": "a\nb"}}', 400, id="bare line end in text"),
        pytest.param(b"{'input': {}}", 400, id="single quotes"),
        pytest.param(b'{"input": {}, "input": {}}', 422, id="input twice"),
        pytest.param(b'{"input": []}', 422, id="input is a list"),
        pytest.param(b'{"id": 5}', 422, id="id is a number"),
        pytest.param(b'{"input": {}, "webhook": 5}', 422, id="webhook is a number"),
        pytest.param(b"[" * DEEP, 422, id="deep lists, cut off"),
        pytest.param(b"[" * DEEP + b"]" * DEEP, 422, id="deep lists"),
        pytest.param(b'{"a":' * DEEP, 400, id="deep objects, cut off"),
        pytest.param(b'{"input":' * DEEP + b"1" + b"}" * DEEP, 400, id="deep objects"),
        pytest.param(b" " * 110 * MEGABYTE, 413, id="110 MB"),
    ],
)
def test_a_body_that_is_no_request_is_refused_with_a_text(quick_server, body, status):
    response = send(quick_server, body)
    assert response.status_code == status
    assert response.text


@pytest.mark.parametrize("body", [b"{}", b'{"input": null}', b'{"input": {}}', b'{"id": null, "unknown": [1]}'])
def test_a_request_for_nothing_fails_with_a_code(quick_server, body):
    assert "E1001 EmptyRequest" in send(quick_server, body).json()["error"]


def test_the_last_of_two_equal_inputs_counts_and_unknown_ones_are_dropped(quick_server):
    twice = '{"input": {"prompt": "", "prompt": "Hi", "max_tokens": 9, "max_tokens": 2, "unknown": ' + "[" * 99
    prediction = send(quick_server, twice + "]" * 99 + "}}").json()
    assert prediction["metrics"]["output_token_count"] == 2
    assert predict(quick_server, **SHORT, unknown="x" * 10 * MEGABYTE)["output"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
def test_another_content_type_is_refused(quick_server, content_type):
    response = send(quick_server, json.dumps({"input": SHORT}), Content_Type=content_type)
    assert (response.status_code, response.text) == (415, "Expected request with `Content-Type: application/json`")


def test_a_compressed_body_is_not_unpacked(quick_server):
    bomb = b"\x1f\x8b\x08\0\0\0\0\0"
    assert send(quick_server, bomb, Content_Encoding="gzip").status_code == 400
