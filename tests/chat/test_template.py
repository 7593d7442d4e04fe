import pytest

from hermes.chat.template import check, fill, filled_size
from hermes.errors import BadPromptTemplate, PromptTemplateError


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        pytest.param("{prompt}", "Hi", id="the prompt alone"),
        pytest.param("[INST] {system_prompt} {prompt} [/INST]", "[INST] Be kind. Hi [/INST]", id="both placeholders"),
        pytest.param('{"q": "{prompt}", "n": {"a": [1]}}', '{"q": "Hi", "n": {"a": [1]}}', id="JSON braces"),
        pytest.param("{prompt.__class__} {prompt}", "{prompt.__class__} Hi", id="attributes are text"),
        pytest.param("{prompt:>99999999} {prompt}", "{prompt:>99999999} Hi", id="format specs are text"),
        pytest.param("{prompt!r} {0} {} {prompt}", "{prompt!r} {0} {} Hi", id="other format fields are text"),
        pytest.param("{{ 7 * 7 }} {prompt}", "{{ 7 * 7 }} Hi", id="expressions are text"),
        pytest.param("{prompt}{prompt}", "HiHi", id="twice"),
        pytest.param("[{{prompt}}] {prompt}", "[Hi] Hi", id="two braces"),
        pytest.param("{{ system_prompt }}{{prompt }}", "Be kind.Hi", id="two braces and spaces"),
        pytest.param('{"a": {{{prompt}}}}', '{"a": {Hi}}', id="two braces in those of JSON"),
        pytest.param("{ prompt } {{prompt} {prompt}", "{ prompt } {Hi Hi", id="braces that do not match"),
    ],
)
def test_only_the_two_placeholders_are_replaced(template, filled):
    assert fill(template, "Hi", "Be kind.") == filled


def test_what_is_filled_in_is_not_filled_again():
    assert fill("{prompt} {system_prompt}", "{system_prompt}", "{prompt}") == "{system_prompt} {prompt}"


def test_a_template_that_would_lose_the_prompt_is_refused():
    with pytest.raises(BadPromptTemplate, match=r"E1003 BadPromptTemplate: prompt_template has no \{prompt\}"):
        check("<|im_start|>user\n{prompt:>9}", prompt="Hi")


@pytest.mark.parametrize("template", ["{{prompt}}", "User: {{ prompt }}", "{prompt} {{ system_prompt }}"])
def test_two_braces_are_read_as_one_and_the_log_says_it(template, caplog):
    with caplog.at_level("INFO"):
        check(template, prompt="Hi")
    name = "system_prompt" if "system" in template else "prompt"
    assert caplog.messages == [f"prompt_template: {{{{{name}}}}} is read as {{{name}}}"]


def test_one_brace_is_no_matter_for_the_log(caplog):
    with caplog.at_level("INFO"):
        check("{prompt} {{ 7 * 7 }}", prompt="Hi")
    assert caplog.messages == []


def test_a_template_that_is_the_whole_prompt_needs_no_placeholder():
    check("Once upon a time", prompt="")


@pytest.mark.parametrize("statement", ["{% for m in messages %}", "{%- if x %}", "{% endfor %}"])
def test_jinja_is_refused_and_not_run(statement):
    with pytest.raises(PromptTemplateError, match=r"E1004 .*Jinja statement"):
        check(statement + "{prompt}", prompt="Hi")


def test_of_a_long_jinja_statement_little_is_said():
    with pytest.raises(PromptTemplateError, match=r"the Jinja statement '{%endx{52}\.\.\.'; templates"):
        check("{%end" + "x" * 1_000_000, prompt="")


@pytest.mark.parametrize("template", ["{prompt}{prompt}é{system_prompt}", "{{prompt}}", "", "{prompt"])
def test_the_size_is_known_before_it_is_filled(template):
    assert filled_size(template, "東", "{prompt}") == len(fill(template, "東", "{prompt}").encode())
