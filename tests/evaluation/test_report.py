"""The report says what was measured, as Markdown and as a page that needs no other file."""

import re

from evaluation.report import markdown, page

FUNCTIONS = {
    "questions": 4,
    "right": 3,
    "refused": [],
    "calls": 5,
    "unenforced": 1,
    "invalid": ["x"],
    "differing": [],
    "cut_off": 2,
}
DOCUMENTS = {
    "schemas": 10,
    "valid": 8,
    "invalid": [],
    "invalid_though_enforced": [],
    "cut_off": 2,
    "refused": [],
    "seconds": [1.0, 3.0],
}
VALUE = {"suite": "GPT4All", "task": "piqa", "metric": "acc", "card": 0.8, "card_stderr": 0.01, "changed": ""}
CARD = [
    {**VALUE, "value": 0.9, "stderr": 0.01, "errors": 7.07, "off": True},
    {**VALUE, "task": "<new>", "value": None, "stderr": None, "errors": None, "off": False, "changed": "merged"},
]
FOUND = {
    "title": "Evaluation of demo",
    "about": {"profile": "local"},
    "functions": {"simple_python": FUNCTIONS},
    "json": DOCUMENTS,
    "card": CARD,
}


def test_each_part_has_its_table():
    text = markdown(FOUND)
    assert "| simple_python | 3 of 4 (75%) | 0 | 5 | 1 | 0 | 2 | 1 |" in text
    assert "| 10 | 8 of 10 (80%) | 2 | 0 | 0 | 0 | 2.0 / 3.0 |" in text
    assert "| GPT4All | piqa | acc | 0.8000 ± 0.0100 | 0.9000 ± 0.0100 | +7.1 | off |" in text
    assert "| GPT4All | <new> | acc | 0.8000 ± 0.0100 |  |  | not measured; merged |" in text


def test_what_was_not_measured_is_left_out():
    assert "JSON mode" not in markdown({**FOUND, "json": None})


def test_the_page_needs_nothing_else_and_shows_text_as_text():
    html = page(FOUND)
    assert not re.search(r"src=|href=|<script|url\(", html)
    assert "&lt;new&gt;" in html
    assert "<new>" not in html
    assert html.count("<svg") == html.count("<table>") == 3
    assert len(re.findall("<rect ", html)) == 1 + 2 + 1
