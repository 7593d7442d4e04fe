"""Bytes in flight: one token does not fill the memory of all."""

import pytest

from hermes.gateway.memory import Memory
from hermes.gateway.problems import Problem


def test_a_token_may_have_half_and_leaves_the_rest_to_others():
    memory = Memory(100)
    memory.take(50, "a")
    with pytest.raises(Problem, match="holds 50 bytes of this token's requests and responses, of at most 50") as full:
        memory.take(1, "a")
    assert (full.value.status, full.value.code, full.value.retry_after) == (429, "memory_full", 5)
    memory.take(30, "b")
    with pytest.raises(Problem, match="holds 80 bytes of requests and responses, of at most 100"):
        memory.take(21, "c")
    assert memory.held == 80


def test_where_there_are_no_tokens_everybody_has_all_of_it():
    memory = Memory(100)
    memory.take(100)
    with pytest.raises(Problem):
        memory.take(1)


def test_what_is_given_back_can_be_taken_again_and_owners_are_forgotten():
    memory = Memory(100)
    memory.take(40, "a")
    memory.add(70, "a")
    memory.give_back(110, "a")
    memory.take(50, "a")
    memory.give_back(50, "a")
    assert memory.held == 0
    assert not memory._of_owners
