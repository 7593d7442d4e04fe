"""Places in a JSON schema: each has a path and resolves its own references.

Source: JSON Schema 2020-12, sections 8 to 10 (https://json-schema.org/draft/2020-12/json-schema-core).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hermes.json_schema.limits import SchemaProblem
from hermes.text import shown

MAX_NESTED = 50  # schemas within schemas, references followed
IN_PLACE = ("allOf", "anyOf", "oneOf")


@dataclass(frozen=True)
class Place:
    """A schema within the one that was sent."""

    schema: Any
    at: str  # the path
    resolver: Any  # of references
    draft: Any  # jsonschema's validator class
    depth: int = 0

    @classmethod
    def of_root(cls, schema: Mapping[str, Any], draft: Any) -> "Place":
        """Make the place of a whole schema."""
        from jsonschema_specifications import REGISTRY

        whole = cls(schema, "$", None, draft)
        return replace(whole, resolver=REGISTRY.resolver_with_root(whole._resource()))

    def _resource(self) -> Any:
        from referencing.jsonschema import specification_with

        return specification_with(self.draft.META_SCHEMA["$schema"]).create_resource(self.schema)

    def entered(self) -> "Place":
        """Go inside: references are relative to the `$id` of a schema, if it has one."""
        if self.depth > MAX_NESTED:
            raise SchemaProblem(self.at, None, f"is more than {MAX_NESTED} schemas deep, with references followed")
        return replace(self, resolver=self.resolver.in_subresource(self._resource()), depth=self.depth + 1)

    def within(self, schema: Any, *steps: str) -> "Place":
        """Go to a schema inside this one."""
        return replace(self, schema=schema, at=self.at + path_of(*steps))

    def each(self, keyword: str) -> list["Place"]:
        """List the schemas of an array."""
        return [self.within(each, keyword, str(n)) for n, each in enumerate(self.schema.get(keyword, ()))]

    def target(self, reference: str) -> "Place":
        """Follow a reference.

        Raises SchemaProblem if the reference does not lead to a schema within the one that was sent.
        """
        from referencing.exceptions import Unresolvable

        try:
            found = self.resolver.lookup(reference)
        except (Unresolvable, AttributeError, TypeError) as error:  # before 2019-09, any value may stand there
            why = f"to {shown(reference)} is not in the schema; copy it in"
            raise SchemaProblem(self.at, "$ref", why) from error
        if not self._is_checked(reference) and not self.draft(self.draft.META_SCHEMA).is_valid(found.contents):
            raise SchemaProblem(self.at, "$ref", f"to {shown(reference)} does not lead to a schema")
        return replace(self, schema=found.contents, at=reference[:200], resolver=found.resolver)

    def _is_checked(self, reference: str) -> bool:
        """Whether the metaschema has checked the target with the whole schema: `$defs` only since 2019-09."""
        holders = r"\$defs|definitions" if "$vocabulary" in self.draft.META_SCHEMA else "definitions"
        return re.fullmatch(rf"#(/({holders})/[^/%]+)?", reference) is not None

    def seen_through(self) -> "Place":
        """Follow references while the schema is only a reference."""
        place = self
        for _ in range(MAX_NESTED):
            if isinstance(place.schema, bool) or place.schema.keys() - {"title", "description"} != {"$ref"}:
                break
            place = place.target(place.schema["$ref"])
        return place

    def applying(self, keywords: tuple[str, ...] = IN_PLACE) -> list[Mapping[str, Any]]:
        """List this schema and all others that apply to the same value. `keywords` limits only this schema."""
        found, waiting = {id(self.schema): self.schema}, self._in_place(keywords)
        while waiting:
            place = waiting.pop()
            if id(place.schema) not in found:
                found[id(place.schema)] = place.schema
                waiting += place._in_place(IN_PLACE)
        return [*found.values()]

    def _in_place(self, keywords: tuple[str, ...]) -> list["Place"]:
        schema = self.schema
        inside = [each for keyword in keywords for each in schema.get(keyword, ())]
        inside += [schema[keyword] for keyword in ("then", "else") if keyword in schema]
        needed = [*schema.get("dependentSchemas", {}).values(), *schema.get("dependencies", {}).values()]
        places = [replace(self, schema=each) for each in [*inside, *needed] if isinstance(each, Mapping)]
        places += [self.target(schema["$ref"])] if "$ref" in schema else []
        return [each for each in places if isinstance(each.schema, Mapping)]


def path_of(*steps: str | int) -> str:
    """Write steps of a path as they stand in messages."""
    return "".join(f".{step}" if str(step).lstrip("$").isidentifier() else _index(str(step)) for step in steps)


def _index(name: str) -> str:
    return f"[{name if name.isdecimal() else shown(name)}]"
