"""lm-eval on the real engine with questions of our own, and BFCL's checker. Both come from the package index."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.__main__ import PACKAGES
from evaluation.asking import Reply
from evaluation.functions import Case, judged
from hermes.devserver.server import PROJECT
from hermes.weights import smollm2

pytestmark = pytest.mark.evaluation

QUESTIONS = [
    ("The capital of France is", ["Paris", "London", "Rome"], 0),
    ("The capital of Japan is", ["Beijing", "Tokyo", "Seoul"], 1),
    ("The opposite of hot is", ["warm", "wet", "cold"], 2),
    ("Two plus two is", ["four", "five", "nine"], 0),
    ("A week has", ["nine days", "seven days", "two days"], 1),
    ("Bees make", ["milk", "silk", "honey"], 2),
    ("The sun is a", ["planet", "star", "moon"], 1),
    ("The largest ocean is the", ["Arctic", "Atlantic", "Pacific"], 2),
]
TASK = """\
task: hermes_facts
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
HEAD = "suite,task,metric,value,stderr,harness_task,harness_metric,changed\n"


@pytest.fixture(scope="module")
def right_by_hand():
    """The share of questions whose right answer SmolLM2 finds the likeliest, by transformers alone."""
    folder = smollm2.prepare(PROJECT / "weights" / smollm2.FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def likelihood(question, choice):
        begun = len(tokenizer(question).input_ids)
        ids = torch.tensor([tokenizer(f"{question} {choice}").input_ids])
        with torch.no_grad():
            logs = model(ids).logits[0].log_softmax(-1)
        return sum(logs[place - 1, ids[0, place]].item() for place in range(begun, ids.shape[1]))

    right = 0
    for question, choices, answer in QUESTIONS:
        likelihoods = [likelihood(question, choice) for choice in choices]
        right += likelihoods.index(max(likelihoods)) == answer
    return right / len(QUESTIONS)


def measured(folder, out, value):
    """The exit code of a comparison with a card that tells this value, and the report."""
    (folder / "card.csv").write_text(f"{HEAD}Ours,facts,acc,{value},0.001,hermes_facts,acc,\n")
    command = ["card", "--task", "hermes_facts", "--include-path", folder, "--card", folder / "card.csv", "--out", out]
    environment = {
        **os.environ,
        "HERMES_PROFILE": "local",
        "HERMES_ENGINE_ARGS": '{"dtype": "float32", "max_model_len": 512}',
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "evaluation", *map(str, command)], cwd=PROJECT, env=environment, timeout=300, check=False
    )
    return done.returncode, json.loads((out / "report.json").read_text())["card"]


def test_a_task_of_our_own_is_measured_as_by_hand_and_a_wrong_card_is_exit_code_1(right_by_hand, tmp_path):
    data = tmp_path / "facts.jsonl"
    keys = ("question", "choices", "answer")
    data.write_text("".join(json.dumps(dict(zip(keys, each, strict=True))) + "\n" for each in QUESTIONS))
    (tmp_path / "facts.yaml").write_text(TASK.format(data=data))
    assert 0 < right_by_hand < 1
    code, [row] = measured(tmp_path, tmp_path / "out", right_by_hand)
    assert (code, row["value"], row["off"]) == (0, right_by_hand, False)
    code, [row] = measured(tmp_path, tmp_path / "out", 99)  # from the kept result, without another run
    assert (code, row["value"], row["off"]) == (1, right_by_hand, True)
    assert row["errors"] < -3


AREA = {
    "name": "area",
    "parameters": {"type": "dict", "properties": {"base": {"type": "integer"}}, "required": ["base"]},
}


@pytest.mark.parametrize(
    ("category", "calls", "right"),
    [
        ("simple_python", [{"name": "area", "arguments": {"base": 2}}], True),
        ("simple_python", [{"name": "area", "arguments": {"base": 3}}], False),
        ("simple_python", [], False),
        ("parallel", [{"name": "area", "arguments": {"base": 3}}, {"name": "area", "arguments": {"base": 2}}], True),
        ("irrelevance", [], True),
        ("irrelevance", [{"name": "area", "arguments": {"base": 2}}], False),
    ],
)
def test_bfcls_own_checker_judges(category, calls, right):
    answers = {
        "simple_python": [{"area": {"base": [2]}}],
        "parallel": [{"area": {"base": [2]}}, {"area": {"base": [3]}}],
    }
    case = Case("one", category, [{"role": "user", "content": "?"}], [AREA], answers.get(category))
    reply = Reply("one", "succeeded", "", None, {"tool_calls": calls}, 1.0)
    assert judged([case], {"one": reply}, PACKAGES / "bfcl") == {"one": right}
