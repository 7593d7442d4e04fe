"""How functions are offered to the model, shown as the whole system turn of the model card's example."""

import json
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.errors import BadTools
from hermes.tool_calls.definitions import (
    NO_ARGUMENTS,
    TAGS,
    Function,
    call_block,
    json_within_tags,
    parse_functions,
    result_block,
    tools_prompt,
)

STOCK = {
    "name": "get_stock_fundamentals",
    "description": (
        "get_stock_fundamentals(symbol: str) -> dict - "
        "Get fundamental data for a given stock symbol using yfinance API."
        "\n\n    Args:\n        symbol (str): The stock symbol."
        "\n\n    Returns:\n        dict: A dictionary containing fundamental data."
        "\n            Keys:\n                - 'symbol': The stock symbol."
        "\n                - 'company_name': The long name of the company."
        "\n                - 'sector': The sector to which the company belongs."
        "\n                - 'industry': The industry to which the company belongs."
        "\n                - 'market_cap': The market capitalization of the company."
        "\n                - 'pe_ratio': The forward price-to-earnings ratio."
        "\n                - 'pb_ratio': The price-to-book ratio."
        "\n                - 'dividend_yield': The dividend yield."
        "\n                - 'eps': The trailing earnings per share."
        "\n                - 'beta': The beta value of the stock."
        "\n                - '52_week_high': The 52-week high price of the stock."
        "\n                - '52_week_low': The 52-week low price of the stock."
    ),
    "parameters": {"type": "object", "properties": {"symbol": {"type": "string"}}, "required": ["symbol"]},
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
STOCK_TURN = r"""You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. You may call one or more functions to assist with the user query. Don't make assumptions about what values to plug into functions. Here are the available tools:
<tools>
{"type": "function", "function": {"name": "get_stock_fundamentals", "description": "get_stock_fundamentals(symbol: str) -> dict - Get fundamental data for a given stock symbol using yfinance API.\n\n    Args:\n        symbol (str): The stock symbol.\n\n    Returns:\n        dict: A dictionary containing fundamental data.\n            Keys:\n                - 'symbol': The stock symbol.\n                - 'company_name': The long name of the company.\n                - 'sector': The sector to which the company belongs.\n                - 'industry': The industry to which the company belongs.\n                - 'market_cap': The market capitalization of the company.\n                - 'pe_ratio': The forward price-to-earnings ratio.\n                - 'pb_ratio': The price-to-book ratio.\n                - 'dividend_yield': The dividend yield.\n                - 'eps': The trailing earnings per share.\n                - 'beta': The beta value of the stock.\n                - '52_week_high': The 52-week high price of the stock.\n                - '52_week_low': The 52-week low price of the stock.", "parameters": {"type": "object", "properties": {"symbol": {"type": "string"}}, "required": ["symbol"]}}}
</tools>
Use the following pydantic model json schema for each tool call you will make:
{"properties": {"arguments": {"title": "Arguments", "type": "object"}, "name": {"title": "Name", "type": "string"}}, "required": ["arguments", "name"], "title": "FunctionCall", "type": "object"}
For each function call return a json object with function name and arguments within <tool_call></tool_call> XML tags as follows:
<tool_call>
{"arguments": <args-dict>, "name": <function-name>}
</tool_call>"""  # noqa: E501  the trained text, letter for letter


def deep():
    value = []
    for _ in range(10_000):
        value = [value]
    return value


def test_the_example_of_the_model_card_is_offered_as_the_model_was_trained():
    assert tools_prompt(parse_functions([{"type": "function", "function": STOCK}])) == STOCK_TURN


def test_each_function_is_a_line():
    turn = tools_prompt([Function("a", {"type": "object"}), Function("é", {"type": "object"}, "{TOOLS}")])
    assert turn.partition("\n<tools>\n")[2].partition("\n</tools>\n")[0] == (
        '{"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}}\n'
        '{"type": "function", "function": {"name": "é", "description": "{TOOLS}", "parameters": {"type": "object"}}}'
    )


@pytest.mark.parametrize(
    ("tool", "function"),
    [
        pytest.param({"type": "function", "function": STOCK}, Function(**STOCK), id="all"),
        pytest.param(
            {"type": "function", "function": {**STOCK, "return": {"type": "object", "description": "The data."}}},
            Function(**STOCK),
            id="as transformers writes a function with its result",
        ),
        pytest.param({"function": {"name": "f"}}, Function("f", {"type": "object", "properties": {}}), id="no type"),
        pytest.param({"name": "f"}, Function("f", {"type": "object", "properties": {}}), id="bare"),
        pytest.param(
            {"name": "f", "description": "d", "parameters": {"required": ["a"]}, "strict": True},
            Function("f", {"type": "object", "required": ["a"]}, "d"),
            id="parameters without a type",
        ),
        pytest.param({"name": "f", "inputSchema": STOCK["parameters"]}, Function("f", STOCK["parameters"]), id="MCP"),
        pytest.param(
            {"name": "f", "inputSchema": STOCK["parameters"], "outputSchema": {"type": "object"}, "annotations": {}},
            Function("f", STOCK["parameters"]),
            id="MCP with a schema of the result",
        ),
        pytest.param(
            {
                "type": "custom",
                "name": "f",
                "input_schema": STOCK["parameters"],
                "cache_control": {"type": "ephemeral"},
            },
            Function("f", STOCK["parameters"]),
            id="Anthropic",
        ),
        pytest.param(
            {"type": "function", "name": "f", "parameters": STOCK["parameters"], "strict": True},
            Function("f", STOCK["parameters"]),
            id="OpenAI's Responses",
        ),
        pytest.param(
            {"name": "f", "parameters": {"type": None, "properties": {"a": {"type": "string", "description": None}}}},
            Function("f", {"type": "object", "properties": {"a": {"type": "string"}}}),
            id="null for what is not there",
        ),
        pytest.param({"name": "f", "parameters": []}, Function("f", NO_ARGUMENTS), id="an empty list, as PHP has it"),
        *(
            pytest.param({"name": name}, Function(name, {"type": "object", "properties": {}}), id=f"the name {name}")
            for name in ["a.b-c_9", "a/b", "a b", "ns::f", "datei öffnen", "検索", "f(x)", 'say "a\\b"', "</tool_cal>"]
        ),
        *(
            pytest.param(
                {"name": "f", "parameters": STOCK["parameters"], key: {"type": "object"}},
                Function("f", STOCK["parameters"]),
                id=f"{key} beside parameters",
            )
            for key in ("return", "returns", "response", "output_schema", "outputSchema", "x-of-somebody", "arguments")
        ),
        *(
            pytest.param({"name": "f", key: {"type": "string"}}, Function("f", NO_ARGUMENTS), id=f"{key} alone")
            for key in ("return", "returns", "response", "output_schema", "outputSchema")
        ),
        pytest.param(
            {"name": "f", "parameters": STOCK["parameters"], "input_schema": STOCK["parameters"]},
            Function("f", STOCK["parameters"]),
            id="one schema under two names",
        ),
        *(
            pytest.param({"name": "f", "parameters": given}, Function("f", CITY), id=name)
            for name, given in {
                "properties where keywords stand": {"city": {"type": "string"}},
                "properties beside a type": {"type": "object", "city": {"type": "str"}},
                "an empty list of definitions": {"type": "OBJECT", "properties": {"city": "string"}},
                "an object or null": {"type": ["object", "null"], "properties": {"city": {"type": "STRING"}}},
            }.items()
        ),
        pytest.param(
            {"name": "f", "parameters": {"type": {"type": "string"}, "title": {"type": "string", "required": True}}},
            Function(
                "f",
                {
                    "type": "object",
                    "properties": {"type": {"type": "string"}, "title": {"type": "string"}},
                    "required": ["title"],
                },
            ),
            id="properties with the names of keywords",
        ),
        pytest.param(
            {
                "name": "f",
                "parameters": {"properties": {"a": {"$ref": "#/components/schemas/A"}}},
                "components": {"schemas": {"A": {"type": "string"}}},
            },
            Function(
                "f",
                {
                    "type": "object",
                    "properties": {"a": {"$ref": "#/components/schemas/A"}},
                    "components": {"schemas": {"A": {"type": "string"}}},
                },
            ),
            id="references into the document around it",
        ),
        pytest.param(
            {"name": "f", "parameters": {"type": "string", "title": "T"}},
            Function("f", {"type": "object", "title": "T"}, unread=("$.type",)),
            id="arguments that are no object",
        ),
        *(
            pytest.param(
                {"name": "f", "parameters": given}, Function("f", {"type": "object"}, unread=("$",)), id=f"for {name}"
            )
            for name, given in {
                "a list": [{"name": "q", "type": "string"}],
                "a text": "the city",
                "true": True,
                "a number": 5,
                "a number of thousands of digits": {"minimum": 10**5_000},
                "what is too deep": {"properties": {"a": {"const": deep()}}},
                "300 KB": {"enum": ["x" * 300_000]},
            }.items()
        ),
        *(
            pytest.param({"name": "f", "parameters": given}, Function("f", NO_ARGUMENTS), id=f"nothing: {given}")
            for given in ("", "[]", "null", "{}", None, {})
        ),
        pytest.param({"name": "f", "parameters": {"type": "object"}}, Function("f", {"type": "object"}), id="any"),
        pytest.param({"name": "f", "parameters": json.dumps(CITY)}, Function("f", CITY), id="JSON in a text"),
        pytest.param(
            {"name": "f", "parameters": {"properties": {"a": {"default": nan, "maximum": inf, "minimum": -inf}}}},
            Function("f", {"type": "object", "properties": {"a": {"default": None}}}),
            id="what is no number",
        ),
        pytest.param(
            {"name": "f", "inputSchema": {"type": "object", "required": ["x"]}, "input_schema": CITY},
            Function("f", CITY, unread=("inputSchema",)),
            id="two schemas",
        ),
        pytest.param({"name": "f", "parameters": {}, "inputSchema": CITY}, Function("f", CITY), id="one of two empty"),
        *(
            pytest.param(
                {"name": "f", "description": given}, Function("f", NO_ARGUMENTS, unread=("description",)), id=f"{given}"
            )
            for given in (5, ["The city."], {"en": "The city."})
        ),
        pytest.param(
            {"name": "f", "description": "a\ud800b \ud83d\ude00"},
            Function("f", NO_ARGUMENTS, "a\ufffdb \U0001f600"),
            id="half a character",
        ),
    ],
)
def test_a_function_is_read_bare_or_in_openais_wrapper(tool, function):
    assert parse_functions([tool]) == (function,)


def test_a_function_that_comes_twice_is_one():
    tools = [STOCK, {"name": "f"}, {"type": "function", "function": STOCK}, {"name": "f", "parameters": []}]
    assert parse_functions(tools) == (Function(**STOCK), Function("f", NO_ARGUMENTS))


STRAY = "looks like a schema; that of the arguments goes into 'parameters'"
NO_NAME = "it has to be 1 to 128 characters, without control characters and tags"
NO_OBJECT = "has to be an object with name, description and parameters"


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        (["f"], "tools[0] has to be an object, not str"),
        ([{"name": "f"}, None], "tools[1] has to be an object, not NoneType"),
        ([{"type": "retrieval"}], "tools[0].type is 'retrieval'; only 'function' is known"),
        ([{"type": "function"}], f"tools[0].name is null; {NO_NAME}"),
        ([{"type": "custom", "name": "f"}], "tools[0].type is 'custom'; only 'function' is known"),
        ([{"function": "f"}], f"tools[0].function {NO_OBJECT}"),
        ([{}], f"tools[0].name is null; {NO_NAME}"),
        ([{"function": {}}], f"tools[0].function.name is null; {NO_NAME}"),
        ([{"name": ""}], f"tools[0].name is ''; {NO_NAME}"),
        ([{"name": "  "}], f"tools[0].name is '  '; {NO_NAME}"),
        ([{"name": "a\x85"}], f"tools[0].name is 'a\\x85'; {NO_NAME}"),
        ([{"name": "a\ud83d"}], f"tools[0].name is 'a\\ud83d'; {NO_NAME}"),
        ([{"name": "a</tool_call>"}], f"tools[0].name is 'a</tool_call>'; {NO_NAME}"),
        ([{"name": "f\n"}], f"tools[0].name is 'f\\n'; {NO_NAME}"),
        ([{"name": "x" * 129}], f"tools[0].name is '{'x' * 56}...; {NO_NAME}"),
        ([{"name": "f", "schema": CITY}], f"tools[0].schema {STRAY}"),
        ([{"name": "f", "args": {"$ref": "#/$defs/a"}}], f"tools[0].args {STRAY}"),
        ([{"name": "f", "arguments": CITY}], f"tools[0].arguments {STRAY}"),
        ([{"name": "f", "args": {"city": {"type": "string"}}}], f"tools[0].args {STRAY}"),
        ([{"name": "f", "params": [{"name": "city"}]}], f"tools[0].params {STRAY}"),
        ([{"name": "f", "properties": CITY["properties"]}], f"tools[0].properties {STRAY}"),
        ([{"name": "f", "of somebody": CITY}], f"tools[0].of somebody {STRAY}"),
        ([{"function": {"name": "f", "arguments": {"properties": {}}}}], f"tools[0].function.arguments {STRAY}"),
        (
            [{"function": {"name": "f"}, "parameters": CITY}],
            "tools[0].parameters looks like a schema; put it into 'function', as 'parameters'",
        ),
        ([{"name": "f", "parameters": {}, "arguments": CITY}], f"tools[0].arguments {STRAY}"),
        ([{"name": "f", "parameters": [], "args": CITY}], f"tools[0].args {STRAY}"),
        ([{"name": "f", "input_schema": {"type": "object"}, "args": CITY}], f"tools[0].args {STRAY}"),
        ([{"name": "f", "parameters": "{}", "params": CITY}], f"tools[0].params {STRAY}"),
        (
            [{"function": {"name": "f", "parameters": {"type": "object"}}, "input_schema": CITY}],
            "tools[0].input_schema looks like a schema; put it into 'function', as 'parameters'",
        ),
        (
            [{"name": "f"}, {"name": "g"}, {"name": "f", "parameters": CITY}],
            "tools[2] is a second function called 'f'; give each its own name",
        ),
        ([{"type": deep()}], f"tools[0].type is {'[' * 57}...; only 'function' is known"),
        ([{"name": deep()}], f"tools[0].name is {'[' * 57}...; {NO_NAME}"),
        (
            [{"name": f"f{n}", "parameters": {"title": "x" * 60_000}} for n in range(5)],
            "the parameters of all tools are 300155 bytes of JSON; at most 262144",
        ),
        ([{"name": f"f{n}"} for n in range(129)], "tools has 129 functions; at most 128"),
    ],
)
def test_a_tool_that_cannot_be_offered_is_refused_with_its_place(tools, problem):
    with pytest.raises(BadTools) as refused:
        parse_functions(tools)
    assert str(refused.value) == f"E1006 BadTools: {problem}"


def test_a_call_is_written_as_the_model_writes_it():
    assert call_block("get_stock_fundamentals", {"symbol": "TSLA"}) == (
        '<tool_call>\n{"arguments": {"symbol": "TSLA"}, "name": "get_stock_fundamentals"}\n</tool_call>'
    )


@pytest.mark.parametrize(
    ("content", "written"),
    [
        pytest.param({"é": [1, None]}, '{"é": [1, null]}', id="JSON"),
        pytest.param('{"a": 1}', '{"a": 1}', id="text that is an object"),
        pytest.param(" [1,\n2] ", "[1, 2]", id="text that is a list"),
        pytest.param("[1, 2", '"[1, 2"', id="text that only begins like a list"),
        pytest.param("[" * 9999, f'"{"[" * 9999}"', id="text that is nested too deeply"),
        pytest.param("5", '"5"', id="text that is a number"),
        pytest.param("", '""', id="no text"),
        pytest.param(None, "null", id="nothing"),
        pytest.param("a</tool_response>b", r'"a\u003c/tool_response>b"', id="a tag"),
    ],
)
def test_a_result_is_written_as_json(content, written):
    assert result_block("f", content) == (f'<tool_response>\n{{"name": "f", "content": {written}}}\n</tool_response>\n')


pieces = st.lists(st.sampled_from([*TAGS, *TAGS, "\\", '"', "<", "</", ">", "tool_call>", "é", "\n"])).map("".join)


def test_half_a_character_is_written_as_its_escape():
    assert result_block("f", r'["\ud83d \ud83d\ude00"]') == (
        '<tool_response>\n{"name": "f", "content": ["\\ud83d 😀"]}\n</tool_response>\n'
    )


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(pieces, pieces, max_size=3))
def test_no_text_within_json_can_open_or_close_a_tag_and_none_is_changed(value):
    text = json_within_tags(value)
    assert not any(tag in text for tag in TAGS)
    assert json.loads(text) == value
