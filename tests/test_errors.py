import re
from pathlib import Path

import pytest

from hermes import errors
from hermes.errors import HermesError, RequestError, ServerError, UnknownEngineArgument, find_error

PACKAGE = Path(errors.__file__).parent


def tree(root):
    for child in root.__subclasses__():
        yield child
        yield from tree(child)


CODED = {child for child in tree(HermesError) if child not in (RequestError, ServerError)}


def test_every_error_has_a_code_of_its_own_family():
    assert {child.code[:3] for child in tree(RequestError)} == {"E10"}
    assert {child.code[:3] for child in tree(ServerError)} == {"E12"}
    assert len({child.code for child in CODED}) == len(CODED)


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = set(re.findall(r"(E\d{4}) (\w+)", errors.__doc__))
    assert drawn == {(child.code, child.__name__) for child in CODED}


@pytest.mark.parametrize("error", sorted(CODED, key=lambda child: child.code), ids=lambda child: child.__name__)
def test_no_error_is_without_a_raise_and_a_sentence(error):
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert re.search(rf"(raise|lambda:) {error.__name__}\b", sources)
    assert error.__doc__.endswith(".")


def test_a_message_begins_with_code_and_name():
    assert str(errors.NoAccelerator("production", needed=2, found=0)).startswith(
        "E1204 NoAccelerator: the production profile needs 2 CUDA devices and 0 were found; "
    )


def test_an_unknown_engine_argument_suggests_the_one_that_was_meant():
    assert "did you mean 'max_model_len'?" in str(UnknownEngineArgument("max_model_length", ["max_model_len", "dtype"]))
    assert "AsyncEngineArgs" in str(UnknownEngineArgument("zzz", ["max_model_len"]))


def test_the_error_is_found_in_what_cog_wraps_around_it():
    text = "Prediction failed: Generator iteration error: EmptyRequest: E1001 EmptyRequest: prompt is empty; send one"
    assert find_error(text) == "E1001 EmptyRequest: prompt is empty; send one"
    assert find_error("something else") is None
