import pytest

from hermes.tool_calls.literal import Ending, object_ending, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5e3, true, false, null, "x"]}', {"a": [1, -2500.0, True, False, None, "x"]}),
        ("{'a': [True, False, None, true, null]}", {"a": [True, False, None, True, None]}),
        (r"""{'a': 'it\'s "so" \n', "b": "it's \"so\""}""", {"a": 'it\'s "so" \n', "b": 'it\'s "so"'}),
        ("{'a': 'True, None,}'}", {"a": "True, None,}"}),
        ('{"a": [1, 2 ,\n], }', {"a": [1, 2]}),
        ('{"a": "1\n2\t3"}', {"a": "1\n2\t3"}),
        (r'{"a": "\ud83d\ude00"}', {"a": "😀"}),
        ('{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_a_literal_is_read(text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expecting value at its end"),
        ('{"a": oops}', "expecting value at 'oops}'"),
        ('{"a" 1}', "expecting ':' delimiter at '1}'"),
        ('{"a": 1} {"b": 2}', """extra data at '{"b": 2}'"""),
        ("[,]", "expecting value at ',]'"),
        ("[1,,]", "expecting value at ']'"),
        ('{"a": Trueish}', "expecting value at 'Trueish}'"),
        ("{1: 2}", "expecting property name enclosed in double quotes at '1: 2}'"),
        ("['a' 'b']", """expecting ',' delimiter at '"b"]'"""),
        (r"""['\x41']""", r"""invalid \escape at '\\x41"]'"""),
        ("[-Infinity]", "-Infinity is no JSON value"),
        ("[__import__('os')]", """expecting value at '__import__("os")]'"""),
    ],
)
def test_what_is_no_literal_is_refused(text, problem):
    with pytest.raises(ValueError, match=r".") as refused:
        parse(text)
    assert str(refused.value) == problem


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        pytest.param("{} {}", ("closed", 2, 0), id="empty"),
        pytest.param('{"a": [{}]}}', ("closed", 11, 0), id="a bracket too many"),
        pytest.param("""{"}": '{"'}.""", ("closed", 11, 0), id="brackets in strings"),
        pytest.param('{"a": "\\"}"}.', ("closed", 12, 0), id="an escaped quote"),
        pytest.param('{"<tools>": "<tools>"}.', ("closed", 22, 0), id="tags in strings"),
        pytest.param('{"a": [1 <tools>', ("tag", 9, 2), id="a tag"),
        pytest.param('{"a": <tools', ("more", 12, 1), id="half a tag"),
        pytest.param('{"a": "<tools>{" b', ("torn", 7, 1), id="a tag in a string with a word behind it"),
        pytest.param('{"a": "<tools>{" ', ("torn", 7, 1), id="a tag in a string with nothing behind it"),
        pytest.param('{"a": "<tools>{', ("torn", 7, 1), id="a tag in a string without an end"),
        pytest.param('{"a": "b', ("more", 8, 1), id="a string without an end"),
    ],
)
def test_the_end_of_an_object_is_found(text, ending):
    assert object_ending(text, 0, cut=False) == Ending(*ending)


@pytest.mark.parametrize("text", ['{"a": "<tools>{" ', '{"a": "<tools>{"', '{"a": "<tools>{'])
def test_where_a_text_was_cut_off_the_last_string_may_go_on(text):
    assert object_ending(text, 0, cut=True) == Ending("more", len(text), 1)
