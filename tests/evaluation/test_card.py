"""The values of the card, and when ours are off."""

from math import isclose

import pytest

from evaluation.card import Told, compared, read_card, tasks_of

CARD = read_card()
BY_TASK = {(told.task, told.metric): told for told in CARD}


def test_the_card_has_its_four_tables():
    assert {told.suite for told in CARD} == {"GPT4All", "AGIEval", "BigBench", "TruthfulQA"}
    assert len(CARD) == len(BY_TASK) == 49
    arc = BY_TASK["arc_challenge", "acc_norm"]
    assert (arc.value, arc.stderr, arc.harness_task, arc.harness_metric) == (
        0.6903,
        0.0135,
        "arc_challenge",
        "acc_norm",
    )


@pytest.mark.parametrize(
    ("suite", "average"), [("GPT4All", 76.93), ("AGIEval", 60.50), ("BigBench", 56.91)], ids=lambda value: str(value)
)
def test_the_values_give_the_averages_that_the_card_tells(suite, average):
    """The better metric of each task where there are two: acc_norm for the first two suites."""
    tasks = {told.task for told in CARD if told.suite == suite}
    best = ("acc_norm", "multiple_choice_grade", "acc")
    values = [next(BY_TASK[task, metric].value for metric in best if (task, metric) in BY_TASK) for task in tasks]
    assert round(100 * sum(values) / len(values), 2) == average


def test_what_the_harness_has_merged_is_not_measured_and_says_so():
    merged = [
        told for told in CARD if "_objects" in told.task and told.task.startswith(("bigbench_logical", "bigbench_tr"))
    ]
    assert len(merged) == 6
    assert {(told.harness_task, told.changed) for told in merged} == {
        ("", "the harness has one task for three, five and seven objects now")
    }
    assert "" not in tasks_of(CARD)
    assert len(tasks_of(CARD)) == len(set(tasks_of(CARD)))


TOLD = Told("s", "t", "acc", 0.60, 0.03, "mine", "acc", "")


@pytest.mark.parametrize(
    ("value", "stderr", "errors", "off"),
    [(0.60, 0.04, 0.0, False), (0.7499, 0.04, 2.998, False), (0.7501, 0.04, 3.002, True), (0.40, 0.0, -6.667, True)],
)
def test_a_value_is_off_by_more_than_three_standard_errors_of_the_difference(value, stderr, errors, off):
    [found] = compared([TOLD], {"mine": {"acc,none": value, "acc_stderr,none": stderr}})
    assert isclose(found.errors, errors, abs_tol=1e-3)
    assert found.off == off


@pytest.mark.parametrize("measured", [{}, {"mine": {}}, {"mine": {"acc,none": 0.5, "acc_stderr,none": "N/A"}}])
def test_what_was_not_measured_is_not_off(measured):
    [found] = compared([TOLD], measured)
    assert (found.value, found.errors, found.off) == (None, None, False)
