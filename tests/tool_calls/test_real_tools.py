"""Tool lists and schemas in the shapes that other people's generators write: each is usable.

A row of tests/data/tools has a label, `tools` or a `schema`, and what is to hold of it:

- `unenforced`: the paths that its grammar leaves out, sorted, for tools by name. Without it there are none.
- `good`: a call, as name and arguments, or a document. The grammar allows it, and the validator finds it valid.
- `bad`: one that the grammar forbids. To the validator it may be valid: it checks no formats, and closes no objects.
- `judged`: one that the grammar allows and the validator finds invalid, by what is unenforced.
"""

import json
from operator import itemgetter

import pytest

from hermes.chat.constraint import SpecialTokens
from hermes.chat.record import typed_record
from hermes.devserver import PROJECT
from hermes.tool_calls.definitions import call_block
from tests.support.fakes import request
from tests.support.grammars import allows, matcher_at, vocabularies

pytestmark = pytest.mark.xdist_group("vocabulary")  # each process that has the real one takes 250 MB more

FILES = sorted((PROJECT / "tests" / "data" / "tools").glob("*.json"))
TIDE = {"name": "tide", "parameters": {"properties": {"port": {"type": "string"}}, "required": ["port"]}}
MANY = [{**TIDE, "name": f"tide_{number}"} for number in range(128)]
CODES = {"name": "codes", "parameters": {"properties": {"code": {"enum": [*range(2_500)]}}, "required": ["code"]}}
LONG = {"type": "string", "description": "A long word. " * 100}
WORDS = {"name": "words", "parameters": {"properties": {f"word_{number}": LONG for number in range(60)}}}
LARGE = [
    {"label": "128 tools", "tools": MANY, "good": ["tide_127", {"port": "Oslo"}], "bad": ["tide_64", {"port": 4}]},
    {
        "label": "one bad tool: an enum of 2,500 numbers",
        "tools": [TIDE, CODES],
        "unenforced": {"codes": ["$"]},
        "good": ["codes", {"code": 2_499}],
        "bad": ["tide", {"port": 4}],
        "judged": ["codes", {"code": -1}],
    },
    {
        "label": "one bad tool: 80 KiB of descriptions",
        "tools": [TIDE, WORDS],
        "unenforced": {"words": ["$"]},
        "good": ["words", {"word_9": "quay"}],
        "bad": ["tide", {"port": 4}],
        "judged": ["words", {"word_9": 4}],
    },
]
ROWS = LARGE + [row for path in FILES for row in json.loads(path.read_text(encoding="utf-8"))]
LISTS, SCHEMAS = ([row for row in ROWS if key in row] for key in ("tools", "schema"))
SAMPLES = ("good", "bad", "judged")


def test_there_are_as_many_rows_as_were_tried():
    labels = [row["label"] for row in ROWS]
    assert len(labels) == len({*labels}) >= 131


@pytest.mark.parametrize("row", LISTS, ids=itemgetter("label"))
def test_a_tool_list_is_usable(row):
    calls = {kind: call_block(*row[kind]) for kind in SAMPLES if kind in row}
    recorded = {}
    for tool_choice in ("required", "auto"):
        asked = request(tools=row["tools"], tool_choice=tool_choice)
        assert allowed_by(asked.constraint, calls) == [kind for kind in calls if kind != "bad"]
        recorded = {kind: dict(typed_record(asked, call, "stop")) for kind, call in calls.items()}
        unenforced = recorded["good"]["tools_unenforced"]
        assert {name: sorted(paths) for name, paths in unenforced.items()} == row.get("unenforced", {})
    assert [[each["name"], each["arguments"]] for each in recorded["good"]["tool_calls"]] == [row["good"]]
    assert "judged" not in row or (len(recorded["judged"]["tool_call_errors"]) == 1)


@pytest.mark.parametrize("row", SCHEMAS, ids=itemgetter("label"))
def test_a_schema_is_usable(row):
    texts = {kind: json.dumps(row[kind], ensure_ascii=False) for kind in SAMPLES if kind in row}
    asked = request(json_schema=row["schema"])
    assert allowed_by(asked.constraint, texts) == [kind for kind in texts if kind != "bad"]
    recorded = {kind: dict(typed_record(asked, text, "stop")) for kind, text in texts.items()}
    assert recorded["good"] == {
        "json_unenforced": row.get("unenforced", []),
        "json_valid": True,
        "finish_reason": "stop",
    }
    assert "judged" not in row or not recorded["judged"]["json_valid"]


def allowed_by(constraint, texts):
    """The names of the texts that the grammar allows, token by token."""
    vocabulary = vocabularies()[-1]
    whole = matcher_at(constraint.lark(SpecialTokens()), vocabulary.engine)
    return [kind for kind, text in texts.items() if allows(whole.deep_copy(), text, vocabulary)]
