import pytest

from hermes.client import Response, ToolCall, ToolCallCutOff, run_tools, tool
from tests.support.scripted import ScriptedModel, calls


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def broken(reason: str) -> None:
    """Break."""
    raise ValueError(f"broken:\n  {reason}")


ANSWER = Response("It is 5.", "stop")


def test_calls_are_run_and_their_results_sent_back_in_order():
    model = ScriptedModel([calls(("add", {"a": 2, "b": 3}), ("add", {"b": "1", "a": 1})), ANSWER])
    run = run_tools(model, "What is 2 + 3, and 1 + 1?", [add], max_tokens=64)
    assert run.text == "It is 5."
    assert run.calls == [(ToolCall("add", {"a": 2, "b": 3}), 5), (ToolCall("add", {"b": "1", "a": 1}), 2)]
    assert run.messages == [
        {"role": "user", "content": "What is 2 + 3, and 1 + 1?"},
        {"role": "assistant", "content": "<add>\n<add>"},
        {"role": "tool", "name": "add", "content": 5},
        {"role": "tool", "name": "add", "content": 2},
        {"role": "assistant", "content": "It is 5."},
    ]
    assert model.asked[1] == {
        "messages": run.messages[:-1],
        "tools": [add.as_dict()],
        "tool_choice": "auto",
        "max_tokens": 64,
    }


def test_a_conversation_goes_on_from_the_messages_of_a_run():
    first = run_tools(ScriptedModel([ANSWER]), "Hi", [add])
    model = ScriptedModel([ANSWER])
    messages = [*first.messages, {"role": "user", "content": "And?"}]
    second = run_tools(model, messages, [add])
    assert model.asked[0]["messages"] == messages
    assert second.messages == [*messages, {"role": "assistant", "content": "It is 5."}]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("broken", {"reason": "on purpose"}), "ValueError: broken: on purpose"),
        (("broken", {"reason": "\udcff"}), "ValueError: broken: \\udcff"),
        (("add", {"a": 1}), "BadArguments: $.b: Missing required keyword only argument"),
        (("add", {"a": 1, "b": "two"}), "BadArguments: $.b: Input should be a valid integer, unable to parse string"),
        (("shell", {}), "there is no tool 'shell'; there are add, broken"),
    ],
)
def test_what_goes_wrong_is_the_result_of_the_call(call, error):
    run = run_tools(ScriptedModel([calls(call), ANSWER]), "Go", [add, broken])
    ((_, result),) = run.calls
    assert result["error"].startswith(error)


def test_an_error_is_short():
    run = run_tools(ScriptedModel([calls(("broken", {"reason": "x" * 10_000})), ANSWER]), "Go", [broken])
    assert len(run.calls[0][1]["error"]) == 500


def test_a_call_that_cannot_be_read_goes_back_to_the_model():
    response = calls(("add", {"a": 1, "b": 1}), errors=[("add", "no closing brace"), (None, "no name")])
    model = ScriptedModel([response, ANSWER])
    run = run_tools(model, "Go", [add])
    assert run.messages[2:5] == [
        {"role": "tool", "name": "add", "content": 2},
        {"role": "tool", "name": "add", "content": {"error": "no closing brace"}},
        {"role": "tool", "name": "unknown", "content": {"error": "no name"}},
    ]
    assert len(run.calls) == 1


def test_an_answer_with_nothing_but_a_mistake_may_be_corrected():
    model = ScriptedModel([calls(errors=[("add", "no arguments")]), calls(("add", {"a": 2, "b": 3})), ANSWER])
    run = run_tools(model, "Go", [add])
    assert run.text == "It is 5."
    assert model.asked[1]["messages"][-1] == {"role": "tool", "name": "add", "content": {"error": "no arguments"}}


def test_after_the_last_round_of_calls_the_model_has_to_answer():
    call = calls(("add", {"a": 1, "b": 1}))
    model = ScriptedModel([call, call, ANSWER])
    run = run_tools(model, "Go", [add], max_rounds=2)
    assert [inputs["tool_choice"] for inputs in model.asked] == ["auto", "auto", "none"]
    assert run.text == "It is 5."
    assert run.messages[-1] == {"role": "assistant", "content": "It is 5."}
    assert len(run.calls) == 2


def test_a_call_is_required_in_the_first_round_only():
    model = ScriptedModel([calls(("add", {"a": 1, "b": 1})), ANSWER])
    run_tools(model, "Go", [add], tool_choice="required")
    assert [inputs["tool_choice"] for inputs in model.asked] == ["required", "auto"]


@pytest.mark.parametrize(("finish_reason", "advice"), [("length", "raise it"), ("timeout", "by its timeout")])
def test_an_answer_cut_off_in_a_call_runs_nothing(finish_reason, advice):
    ran = []

    def note(text: str) -> None:
        """Note something."""
        ran.append(text)

    cut = calls(("note", {"text": "a"}), errors=[("note", "cut off")], finish_reason=finish_reason)
    with pytest.raises(ToolCallCutOff, match=advice) as caught:
        run_tools(ScriptedModel([cut]), "Go", [note])
    assert ran == []
    assert caught.value.messages == [{"role": "user", "content": "Go"}]
    assert caught.value.text == "<note>"


@pytest.mark.parametrize("finish_reason", ["length", "timeout"])
def test_an_answer_cut_off_in_its_text_is_an_answer(finish_reason):
    assert run_tools(ScriptedModel([Response("It is", finish_reason)]), "Go", [add]).text == "It is"


def test_the_text_of_every_round_is_streamed():
    seen = []
    run_tools(ScriptedModel([calls(("add", {"a": 1, "b": 1})), ANSWER]), "Go", [add], on_text=seen.append)
    assert seen == ["<add>", "It is 5."]


@pytest.mark.parametrize(("tools", "problem"), [([], "no tools"), ([add, add], "two tools named 'add'")])
def test_tools_that_cannot_be_told_apart_are_refused(tools, problem):
    with pytest.raises(ValueError, match=problem):
        run_tools(ScriptedModel([]), "Go", tools)


def test_a_result_with_half_of_a_character_cannot_be_sent():
    def names() -> list[str]:
        """The files there are."""
        return ["caf\udce9.txt"]  # as Python names a file whose name is no UTF-8

    run = run_tools(ScriptedModel([calls(("names", {})), ANSWER]), "Go", [names])
    assert run.calls[0][1]["error"].startswith("UnicodeEncodeError: 'utf-8' codec can't encode character '\\udce9'")
