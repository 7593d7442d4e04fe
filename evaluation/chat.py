"""Two-turn questions in the form of MT-Bench: asked over HTTP, and written as FastChat's files of answers.

The answers are for a judge of one's own: https://github.com/lm-sys/FastChat/tree/main/fastchat/llm_judge
Questions are JSON lines with question_id, category and turns. questions.jsonl has some of this project's own.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.asking import Question, Reply, ask_all

QUESTIONS = Path(__file__).with_name("questions.jsonl")
MAX_TOKENS = 1024
# The temperature of each category, as FastChat has it (llm_judge/common.py: temperature_config).
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}


def answered(
    url: str, questions: Sequence[Mapping[str, Any]], out: Path, model: str, seed: int, answered_by: str = ""
) -> list[dict[str, Any]]:
    """Ask all first turns, then all second ones. Returns the answers in FastChat's form."""
    turns: dict[Any, list[dict[str, str]]] = {each["question_id"]: [] for each in questions}
    for number in range(max(len(each["turns"]) for each in questions)):
        asked = list(_asked(questions, turns, number, seed))
        replies = ask_all(url, asked, out.with_name(f"{out.stem}-turn-{number + 1}.jsonl"), answered_by)
        for question in asked:
            conversation = turns[json.loads(question.id)]
            conversation += [
                question.inputs["messages"][-1],
                {"role": "assistant", "content": _text(replies[question.id])},
            ]
    return [_answer(each, turns[each["question_id"]], model) for each in questions]


def _asked(
    questions: Sequence[Mapping[str, Any]], turns: Mapping[Any, list[dict[str, str]]], number: int, seed: int
) -> Iterator[Question]:
    for each in questions:
        if number < len(each["turns"]):
            messages = [*turns[each["question_id"]], {"role": "user", "content": each["turns"][number]}]
            sampling = {"temperature": TEMPERATURES.get(each["category"], 0), "max_tokens": MAX_TOKENS, "seed": seed}
            yield Question(json.dumps(each["question_id"]), {"messages": messages, **sampling})


def _text(reply: Reply) -> str:
    return reply.text if reply.status == "succeeded" else f"ERROR: {reply.error}"


def _answer(question: Mapping[str, Any], turns: Sequence[Mapping[str, str]], model: str) -> dict[str, Any]:
    texts = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    said = hashlib.sha256(json.dumps([question["question_id"], model, texts]).encode()).hexdigest()[:22]
    return {
        "question_id": question["question_id"],
        "answer_id": said,
        "model_id": model,
        "choices": [{"index": 0, "turns": texts}],
        "tstamp": time.time(),
    }
