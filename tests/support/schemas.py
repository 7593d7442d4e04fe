"""Schemas and tools for the real engine."""

TEXT = {"type": "string"}
SHORT = {"type": "string", "minLength": 1, "maxLength": 24}


def thing(*required, **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


SCHEMAS = [
    thing("name", "born", name=SHORT, born={"type": "integer", "minimum": 1800, "maximum": 2100}),
    thing("colour", colour={"enum": ["rot", "grün", "青", 'say "blue"', None, 3]}),
    thing("tags", tags={"type": "array", "items": SHORT, "minItems": 2, "maxItems": 4}),
    thing("who", who=thing("first", first=SHORT, middle=SHORT, last=SHORT), age={"type": ["integer", "null"]}),
    thing("value", value={"anyOf": [{"type": "number", "minimum": -1, "maximum": 1}, {"type": "boolean"}, SHORT]}),
    thing("prénom", "名前", prénom=SHORT, 名前={"const": "日本 𝔘"}),
    thing("code", code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"}),
    thing("mail", mail={"type": "string", "pattern": "^[^@\\s]{1,9}@[^@\\s]{1,9}$"}),
    thing("on", on={"type": "string", "format": "date"}, at={"type": "string", "format": "time"}),
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
    {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 3},
    {
        "$defs": {
            "tree": thing(
                "v", v={"type": "integer"}, kids={"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}
            )
        },
        "$ref": "#/$defs/tree",
    },
    {
        "oneOf": [
            thing("kind", "lives", kind={"const": "cat"}, lives={"type": "integer", "minimum": 1, "maximum": 9}),
            thing("kind", "barks", kind={"const": "dog"}, barks={"type": "boolean"}),
        ]
    },
]
TOOLS = [
    {"name": f"tool_{number}", "description": f"Does the thing number {number}.", "parameters": parameters}
    for number, parameters in enumerate(schema for schema in SCHEMAS if "properties" in schema)
]
