"""A conversation in the terminal, line by line; tests/integration/test_gateway_chat.py has the real terminal."""

import json

import pytest

from hermes.cli.chat import Conversation
from hermes.client import PredictionFailed, Response
from tests.support.scripted import METRICS, ScriptedModel

METRICS = METRICS | {"time_to_first_token": 0.1, "tokens_per_second": 9.0}


def answers(*texts):
    return ScriptedModel([Response(text, "stop", metrics=METRICS) for text in texts])


def conversation(model):
    return Conversation(model, "Be kind.", {"temperature": 0})


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def test_a_conversation_has_all_its_turns(capsys):
    talk = conversation(answers("Hello **you**", "Fine"))
    talk.take("Hi")
    talk.take("How are you?")
    assert talk.turns == [user("Hi"), said("Hello **you**"), user("How are you?"), said("Fine")]
    assert talk.model.asked[1] == {"system_prompt": "Be kind.", "messages": talk.turns[:3], "temperature": 0}
    printed = capsys.readouterr()
    assert "Hello you" in printed.out
    assert "2 tokens, the first after 0.10 s" in printed.err


def test_the_system_prompt_changes_and_stays(capsys):
    talk = conversation(answers("A"))
    talk.take("/system Be rude.")
    talk.take("/reset")
    talk.take("Hi")
    assert talk.model.asked[0]["system_prompt"] == "Be rude."
    talk.take("/system")
    assert capsys.readouterr().err.endswith("system: Be rude.\n")


def test_retry_asks_the_same_again():
    talk = conversation(answers("A", "B"))
    talk.take("Hi")
    talk.take("/retry")
    assert talk.model.asked[0] == talk.model.asked[1]
    assert talk.turns == [user("Hi"), said("B")]
    with pytest.raises(ValueError, match="no question yet"):
        conversation(answers()).take("/retry")


def test_a_conversation_is_saved_and_loaded(tmp_path):
    talk, file = conversation(answers("Hé")), tmp_path / "talk.json"
    talk.take("Hi")
    talk.take(f"/save {file}")
    other = conversation(answers("Again"))
    other.take(f"/load {file}")
    assert (other.system, other.turns) == (talk.system, talk.turns)
    for broken in ("[]", "{}", "{"):
        file.write_text(broken)
        with pytest.raises(ValueError, match=r"no conversation|Expecting"):
            other.take(f"/load {file}")
    with pytest.raises(OSError, match="No such file"):
        other.take("/load /nowhere")
    assert json.loads(json.dumps(other.turns)) == talk.turns


def test_ctrl_c_keeps_what_was_said():
    class Interrupted:
        def ask(self, inputs, on_text):
            on_text("So far")
            raise KeyboardInterrupt

    talk = conversation(Interrupted())
    talk.take("Hi")
    assert talk.turns == [user("Hi"), said("So far")]


def test_a_question_that_failed_is_taken_back():
    class Failing:
        def ask(self, inputs, on_text):
            raise PredictionFailed("E1203 EngineFailed: gone")

    talk = conversation(Failing())
    with pytest.raises(PredictionFailed):
        talk.take("Hi")
    assert talk.turns == []


@pytest.mark.parametrize("line", ["/nothing", "/Help"])
def test_a_command_that_is_none_says_so(line):
    with pytest.raises(ValueError, match="/help shows them"):
        conversation(answers()).take(line)


def test_help_and_an_empty_line_ask_nothing(capsys):
    talk = conversation(answers())
    talk.take("")
    talk.take("/help")
    assert "/retry" in capsys.readouterr().err
    assert talk.model.asked == []
