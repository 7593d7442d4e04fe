from decimal import Decimal
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, create_model, field_validator
from pydantic.json_schema import GenerateJsonSchema

from hermes.client import ExtractionFailed, Response, extract
from hermes.json_schema.grammar import enforceable
from tests.support.scripted import ScriptedModel


class Person(BaseModel):
    name: str
    age: int

    @field_validator("age")
    @classmethod
    def nobody_is_that_old(cls, age):
        if age > 150:
            raise ValueError("nobody is that old")
        return age


class Node(BaseModel):
    children: "list[Node]" = []


GOOD = Response('{"name": "Ada", "age": 36}', "stop", json_valid=True)
OLD = Response('{"name": "Ada", "age": 360}', "stop", json_valid=True)


def test_a_document_becomes_an_instance():
    model = ScriptedModel([GOOD])
    assert extract(model, Person, "Ada, 36.", instructions="Who is it?", seed=1) == Person(name="Ada", age=36)
    assert model.asked == [
        {
            "messages": [
                {"role": "user", "content": '<document index="1">\nAda, 36.\n</document>\n\nWho is it?'},
            ],
            "json_schema": {
                "type": "object",
                "title": "Person",
                "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                "required": ["name", "age"],
            },
            "seed": 1,
        }
    ]


def test_several_documents_are_numbered():
    model = ScriptedModel([GOOD])
    extract(model, Person, ["Ada", "36"])
    assert model.asked[0]["messages"][0]["content"] == (
        '<document index="1">\nAda\n</document>\n<document index="2">\n36\n</document>\n\n'
        "Answer with the data from the documents above."
    )


def test_a_model_that_holds_itself_is_a_reference_at_the_top():
    model = ScriptedModel([Response('{"children": [{}]}', "stop")])
    assert extract(model, Node, "A tree.") == Node(children=[Node()])
    node = {
        "type": "object",
        "title": "Node",
        "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []}},
    }
    assert model.asked[0]["json_schema"] == {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
    assert enforceable(model.asked[0]["json_schema"]), "the server takes it"


# Each type of a field, with what pydantic 2.13.5 writes for its text; 2.14 writes {"type": "string"}.
DECIMALS = {
    "plain": (Decimal, r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"),
    "money": (
        Annotated[Decimal, Field(max_digits=5, decimal_places=2)],
        r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,6}0*$)\d{0,3}\.\d{0,2}0*$)",
    ),
    "optional": (Decimal | None, r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"),
}


@pytest.mark.parametrize("of_2_13", [False, True], ids=["pydantic installed", "pydantic 2.13"])
@pytest.mark.parametrize(("kind", "pattern"), DECIMALS.values(), ids=DECIMALS)
def test_a_decimal_is_read_whatever_pydantic_writes_for_it(kind, pattern, of_2_13, monkeypatch):
    if of_2_13:
        written = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": pattern}]}
        monkeypatch.setattr(GenerateJsonSchema, "decimal_schema", lambda *_: written)
    invoice = create_model("Invoice", total=(kind, ...))
    model = ScriptedModel([Response('{"total": "12.50"}', "stop", json_valid=True)])
    assert extract(model, invoice, "Total: 12.50").total == Decimal("12.50")
    left_out = enforceable(model.asked[0]["json_schema"]).unenforced
    assert left_out == (("$.properties.total.anyOf[1].pattern",) if of_2_13 else ()), "the server takes it"


def test_a_wrong_answer_may_be_corrected_once():
    model = ScriptedModel([OLD, GOOD])
    seen = []
    assert extract(model, Person, "Ada", on_text=seen.append).age == 36
    assert model.asked[1]["messages"][1:] == [
        {"role": "assistant", "content": OLD.text},
        {
            "role": "user",
            "content": "That does not fit the schema: $.age: Value error, nobody is that old, got 360. "
            "Answer again with the whole, corrected JSON object.",
        },
    ]
    assert seen == [OLD.text, GOOD.text]


@pytest.mark.parametrize(
    ("responses", "problem"),
    [
        ([OLD, OLD], "$.age: Value error, nobody is that old, got 360"),
        (
            [Response("no", "stop"), Response("never", "stop")],
            "$: Invalid JSON: expected ident at line 1 column 2, got 'never'",
        ),
        ([Response('{"name": "A', "length")], "it was cut off at max_tokens (raise it)"),
        ([OLD, Response('{"name": "A', "length")], "it was cut off at max_tokens (raise it)"),
        ([Response('{"name": "A', "timeout")], "it was cut off by its timeout (raise it)"),
    ],
)
def test_an_answer_that_stays_wrong_is_an_error_with_its_text(responses, problem):
    with pytest.raises(ExtractionFailed) as caught:
        extract(ScriptedModel(responses), Person, "Ada")
    assert str(caught.value) == f"the response is not a valid Person: {problem}"
    assert caught.value.text == responses[-1].text


def test_no_documents_are_nothing_to_ask():
    with pytest.raises(ValueError, match="no documents"):
        extract(ScriptedModel([]), Person, [])


def test_a_number_of_more_digits_than_python_writes_is_no_person():
    answer = Response('{"age": ' + "1" * 5_000 + ', "name": ' + "2" * 4_000 + "}", "length")
    with pytest.raises(ExtractionFailed, match="it was cut off"):
        extract(ScriptedModel([answer]), Person, "Ada, 36.")
    with pytest.raises(ExtractionFailed, match=r"the response is not a valid Person: \$"):
        extract(ScriptedModel([Response(answer.text, "stop")] * 2), Person, "Ada, 36.")
