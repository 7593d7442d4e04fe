"""Texts for messages give no secret away."""

import pytest

from hermes.text import redacted, without_credentials
from tests.support.work import at_most

TEXTS = {
    "GET https://me:secret@host/a failed": "GET https://...@host/a failed",
    "https://me:p@ss'\"word@host/a": "https://...@host/a",
    "https://token@host": "https://...@host",
    "GET https://me:se/cr@et@host/a failed": "GET https://...@host/a failed",
    "proxy http://me:se?cret@host:1/": "proxy http://...@host:1/",
    "https://host:8080/a@b.tar and [http://[::1]:80/a@b]": "https://host:8080/a@b.tar and [http://[::1]:80/a@b]",
    "https://host/a?X-Amz-Signature=1&b=2 failed": "https://host/a failed",
    "https://host/a?download&Signature=x%20y": "https://host/a",
    "with url: /m.tar?a='b'&sig=9 (Caused by X)": "with url: /m.tar (Caused by X)",
    "(url='https://host/a?sig=x')": "(url='https://host/a')",
    "<https://host/a?sig=x>; rel=next": "<https://host/a>; rel=next",
    "the token hf_aBcDeFgH123 is wrong": "the token ... is wrong",
    "hf_oauth_eyJ.aaa-bbb.ccc": "...",
    "the token r8_aBcDeFgH123": "the token ...",
    "Authorization: Bearer abc.def-ghi": "Authorization: Bearer ...",
    "authorization: bearer\n abc": "authorization: bearer ...",
    "Proxy-Authorization: Basic bWU6c2VjcmV0": "Proxy-Authorization: Basic ...",
    "one\n  two\r\nthree": "one two three",
    "hf://owner/repo@main: config.json": "hf://owner/repo@main: config.json",
    "Is it 1 = 1? Yes, me@host": "Is it 1 = 1? Yes, me@host",
}


@pytest.mark.parametrize(("text", "shown"), TEXTS.items(), ids=map(repr, TEXTS))
def test_a_text_is_one_line_without_secrets(text, shown):
    assert redacted(text) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize("part", ["?", "a", "://", "hf_", "Bearer ", "?a=", "@"])
def test_a_text_that_was_meant_to_hang_us_is_read_at_once(part):
    with at_most(0.1, all_threads=True):
        redacted(part * 10_000)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:se/c r#e?t@host:1/a?key=secret#top", "http://host:1/a"),
        ("me:p@ss\nword@host", "host"),
        ("git+ssh://me@host", "git+ssh://host"),
        ("http://host/", "http://host/"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_is_before_its_host(url, shown):
    assert without_credentials(url) == shown
