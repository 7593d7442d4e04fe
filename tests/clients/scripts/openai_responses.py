import sys

from openai import OpenAI

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "name": "get_weather", "parameters": {**CITY, "additionalProperties": False}}


def ask(items, choice, **more):
    sent = {"model": "model", "input": items, "instructions": "Be brief.", "tools": [TOOL], "tool_choice": choice}
    if sys.argv[2] == "whole":
        return CLIENT.responses.create(**sent, **more, temperature=0, max_output_tokens=60)
    with CLIENT.responses.stream(**sent, **more, temperature=0, max_output_tokens=60) as stream:
        return stream.get_final_response()


CLIENT = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
KEPT = sys.argv[3] == "kept"
items = [{"role": "user", "content": "What is the weather in Oslo?"}]
first = ask(items, {"type": "function", "name": "get_weather"}, **({} if KEPT else {"store": False}))
calls = [item for item in first.output if item.type == "function_call"]
results = [{"type": "function_call_output", "call_id": call.call_id, "output": "It rains."} for call in calls]
if KEPT:
    last = ask(results, "none", previous_response_id=first.id)
else:
    last = ask([*items, *first.output, *results], "none", store=False)
print(last.output_text)
