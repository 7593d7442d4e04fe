"""Sixty schemas of documents with numbers, as people write them, and none with a text or list that has no length."""

from tests.support.schemas import thing

NUMBER, INTEGER, TRUTH = {"type": "number"}, {"type": "integer"}, {"type": "boolean"}
NAME = {"type": "string", "maxLength": 20}
WHEN, SPAN, DAY = ({"type": "string", "format": name} for name in ("date-time", "duration", "date"))
UNIT = {"enum": ["g", "kg", "t"]}


def several(items, most=3, least=1):
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def optional(schema):
    return {"anyOf": [schema, {"type": "null"}]}


def at(low=None, high=None, kind="number"):
    ends = {"minimum": low, "maximum": high}
    return {"type": kind} | {name: end for name, end in ends.items() if end is not None}


def fields(**properties):
    return thing(*properties, **properties)


POINT = fields(lat=at(-90, 90), lon=at(-180, 180))
DOCUMENTS = [
    NUMBER,
    INTEGER,
    at(0),
    at(0, 1),
    at(-273.15),
    at(1, kind="integer"),
    {"type": "number", "exclusiveMinimum": 0},
    {"type": "number", "exclusiveMaximum": 1000},
    {"type": ["number", "null"]},
    {"type": ["integer", "string"], "maxLength": 8},
    optional(NUMBER),
    {"anyOf": [NUMBER, INTEGER, NAME]},
    several(NUMBER),
    several(INTEGER, 5, 2),
    several(at(0, 1), 4),
    several(several(NUMBER, 2, 2), 2),
    {"type": "array", "prefixItems": [NUMBER, NUMBER], "items": False, "minItems": 2},
    {"type": "array", "prefixItems": [NAME, NUMBER], "items": INTEGER, "maxItems": 3},
    fields(third=NUMBER),
    fields(one_third=NUMBER, two_thirds=NUMBER),
    fields(pi=NUMBER, e=NUMBER, golden_ratio=NUMBER),
    fields(answer=INTEGER),
    fields(population=INTEGER, area_km2=NUMBER, density=NUMBER),
    fields(price=at(0), currency=NAME),
    fields(price={"type": "number", "multipleOf": 0.01}, amount=INTEGER),
    fields(temperature=at(-273.15), humidity=at(0, 100)),
    POINT,
    fields(name=NAME, place=POINT),
    fields(**{"from": POINT, "to": POINT}, km=at(0)),
    fields(started=WHEN, seconds=NUMBER),
    fields(took=SPAN),
    fields(day=DAY, hours=at(0, 24)),
    fields(name=NAME, age=INTEGER),
    fields(name=NAME, age=optional(INTEGER), height_m=optional(NUMBER)),
    fields(mass=NUMBER, unit=UNIT),
    fields(scores=several(NUMBER, 4)),
    fields(probability=at(0, 1), certain=TRUTH),
    fields(mean=NUMBER, median=NUMBER, deviation=at(0)),
    fields(rows=several(fields(x=NUMBER, y=NUMBER), 2)),
    fields(matrix=several(several(NUMBER, 2, 2), 2, 2)),
    fields(id=INTEGER, parent=optional(INTEGER)),
    fields(year=INTEGER, month=at(1, 12, "integer"), day=at(1, 31, "integer")),
    fields(numerator=INTEGER, denominator={"type": "integer", "exclusiveMinimum": 0}),
    fields(celsius=NUMBER, fahrenheit=NUMBER, kelvin=at(0)),
    fields(value={"oneOf": [NUMBER, TRUTH]}),
    fields(value={"allOf": [NUMBER]}),
    fields(speed={"$ref": "#/$defs/speed"}, limit={"$ref": "#/$defs/speed"}) | {"$defs": {"speed": NUMBER}},
    fields(items=several({"$ref": "#/$defs/item"}, 2))
    | {"$defs": {"item": fields(sku=NAME, price=at(0), count=at(1, kind="integer"))}},
    thing("a", a=NUMBER, b=NUMBER, c=NUMBER),
    thing(least=NUMBER, most=NUMBER),
    thing("z", x=INTEGER, y=INTEGER, z=INTEGER),
    {"type": "object", "additionalProperties": NUMBER, "maxProperties": 2},
    {"type": "object", "patternProperties": {"^[a-z]{1,8}$": TRUTH}, "additionalProperties": False, "maxProperties": 2},
    fields(rates={"type": "object", "additionalProperties": at(0), "maxProperties": 2}),
    fields(radius=at(0), circumference=at(0), area=at(0)),
    fields(bytes=INTEGER, megabytes=NUMBER),
    fields(distance_m=NUMBER, light_years=NUMBER),
    fields(charge=at(None, 0), mass_kg=at(0)),
    fields(result=NUMBER, steps=several(fields(step=INTEGER, value=NUMBER), 3)),
    fields(ok=TRUTH, error=optional(NAME), value=optional(NUMBER)),
]
