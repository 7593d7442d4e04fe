"""A response in JSON that satisfies a schema. Needs a running server (make serve)."""

import sys

from hermes import CogServer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "born": {"type": "integer", "minimum": 1000, "maximum": 2000},
        "fields": {"type": "array", "items": {"enum": ["mathematics", "poetry", "physics"]}, "maxItems": 2},
    },
    "required": ["name", "born", "fields"],
}
model = CogServer(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:5000")
response = model.ask(
    {"prompt": "Who was Ada Lovelace?", "json_schema": SCHEMA, "temperature": 0},
    on_text=lambda piece: print(piece, end="", flush=True),
)
print(f"\n(json_valid {response.json_valid}, {response.finish_reason})")
