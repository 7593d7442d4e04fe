import pytest

from hermes.tool_calls.literal import Ending, ObjectScan, parse


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
        pytest.param("{} {}", Ending("closed", 2), id="empty"),
        pytest.param('{"a": [{}]}}', Ending("closed", 11), id="a bracket too many"),
        pytest.param("""{"}": '{"'}.""", Ending("closed", 11), id="brackets in strings"),
        pytest.param('{"a": "\\"}"}.', Ending("closed", 12), id="an escaped quote"),
        pytest.param('{"<tools>": "<tools>"}.', Ending("closed", 22), id="tags in strings"),
        pytest.param('{"a": 1 <tools>', Ending("tag", 8), id="a tag"),
        pytest.param('{"a": <tools', Ending("more", 6), id="half a tag"),
        pytest.param('{"a": "<tools>{" b', Ending("torn", 7), id="a quote that was missing"),
        pytest.param('{"a": "<tools>{" ', Ending("more", 17), id="perhaps a quote that was missing"),
        pytest.param('{"a": "b', Ending("more", 8), id="a string"),
    ],
)
def test_the_end_of_an_object_is_found(text, ending):
    assert ObjectScan(bytearray(text.encode()), 0).scan() == ending


def test_the_end_is_found_in_a_text_that_grows():
    text = bytearray()
    scan = ObjectScan(text, 0)
    endings = []
    for byte in b'{"a": "<tools>"}':
        text.append(byte)
        endings.append(scan.scan().how)
    assert endings == ["more"] * 15 + ["closed"]


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ('{"a": "b', Ending("more", 8)),
        ('{"a": "<tools>', Ending("torn", 7)),
        ('{"a": "<tools>"', Ending("torn", 7)),
        ('{"a": <too', Ending("more", 10)),
    ],
)
def test_an_object_that_stays_open_is_given_up_at_the_first_tag_in_its_last_string(text, ending):
    scan = ObjectScan(bytearray(text.encode()), 0)
    scan.scan()
    assert scan.give_up() == ending
