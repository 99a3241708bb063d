"""JSON in and out. The schema that the OpenAPI document shows is the one that every body is held against.

A type of our own says itself how it travels: `SCHEMA` (its JSON Schema), `to_wire()` and the class method `from_wire()`.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn, Protocol, TypeVar, cast, get_args
from weakref import WeakKeyDictionary

import jsonschema_rs
import msgspec

from tidegate.contract.answers import EncodedOnce
from tidegate.errors import Fault, Invalid, Malformed

T = TypeVar("T")

DEPTH_LIMIT = 32  # SEC-17
SAFE_INTEGER = 2**53 - 1  # the largest that every reader of JSON keeps exact; RFC 8259, section 6


class Wired(Protocol):
    """A value that knows its own form in JSON."""

    SCHEMA: dict[str, Any]

    def to_wire(self) -> Any: ...

    @classmethod
    def from_wire(cls, value: Any) -> Any: ...


def _to_wire(value: Any) -> Any:
    return cast(Wired, value).to_wire()


def _from_wire(kind: Any, value: Any) -> Any:
    return cast(type[Wired], kind).from_wire(value)


_encoder = msgspec.json.Encoder(enc_hook=_to_wire)
_once: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


def encode(value: Any) -> bytes:
    if not isinstance(value, EncodedOnce):
        return _encoder.encode(value)
    if (found := _once.get(value)) is None:
        found = _once[value] = _encoder.encode(value)
    return found


def decode(data: bytes | str, kind: type[T]) -> T:
    """A value from JSON that we wrote ourselves. What strangers wrote goes through `read_body`."""
    return msgspec.json.decode(data, type=kind, dec_hook=_from_wire)


def plain(value: Any) -> Any:
    """The value as JSON's own types: dicts, lists, strings, numbers."""
    return msgspec.json.decode(encode(value))


def read_body(data: bytes, kind: Any) -> Any:
    """A stranger's JSON as a value of `kind`. Raises Malformed, or Invalid with every fault and its place."""
    return build(_parse(data), kind, "body")


def build(value: Any, kind: Any, place: str) -> Any:
    """Parsed JSON as a value of `kind`. Raises Invalid with every fault and its place."""
    faults = checker(kind).faults(value, place)
    if not faults:
        try:
            return msgspec.convert(value, type=kind, dec_hook=_from_wire)
        except msgspec.ValidationError as error:
            why, _, at = str(error).rpartition(" - at `$")
            faults = (
                [Fault(place + re.sub(r"[.\[]", "/", at.rstrip("`").replace("]", "")), why)]
                if at
                else [Fault(place, str(error))]
            )
    raise Invalid("the request does not fit the command", faults)


def fits(value: Any, kind: Any) -> bool:
    """Whether this is such a value already, rather than plain JSON that describes one."""
    kinds = [k for k in (get_args(kind) or (kind,)) if isinstance(k, type)]
    return any(isinstance(value, k) for k in kinds if not issubclass(k, (dict, list, tuple)))


def read_text(text: str, kind: Any) -> Any:
    """One path or query parameter: its text as a value of `kind`. Raises ValueError that says what would be right."""
    try:
        value = msgspec.convert(text, type=kind, strict=False, dec_hook=_from_wire)
    except msgspec.ValidationError as error:
        raise ValueError(str(error).partition(" - at `")[0]) from None
    if isinstance(value, int) and abs(value) > SAFE_INTEGER:
        raise ValueError("too large: integers stay below 2^53")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number")
    return value


# ── schemas


def schemas(kinds: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A schema for each type, and the named ones that they refer to, as OpenAPI 3.1 wants them."""
    found, components = msgspec.json.schema_components(kinds, schema_hook=_schema, ref_template="#/components/schemas/{name}")
    return list(found), {name: _closed(schema) for name, schema in sorted(components.items())}


class Checker:
    """Holds values against a type's schema and names every fault in the type's own words."""

    def __init__(self, kind: Any) -> None:
        found, components = msgspec.json.schema_components([kind], schema_hook=_schema, ref_template="#/$defs/{name}")
        self._document = {**found[0], "$defs": {name: _closed(schema) for name, schema in components.items()}}
        self._validator = jsonschema_rs.Draft202012Validator(self._document, validate_formats=True, formats=_FORMATS)

    def faults(self, value: Any, place: str) -> list[Fault]:
        if self._validator.is_valid(value):
            return []
        return [fault for error in self._validator.iter_errors(value) for fault in self._faults(error, place)]

    def _faults(self, error: Any, place: str) -> list[Fault]:
        if error.kind.name == "anyOf":
            # Of "this or null" only the branch that was meant is of interest: the one that is not merely of another type.
            meant = [b for b in error.kind.context if not any(self._other_type(e, error) for e in b)]
            if len(meant) == 1:
                return [fault for inner in meant[0] for fault in self._faults(inner, place)]
        at = "/".join([place, *(str(step) for step in error.instance_path)])
        return [Fault(at, self._why(error))]

    @staticmethod
    def _other_type(error: Any, outer: Any) -> bool:
        return bool(error.kind.name == "type" and error.instance_path == outer.instance_path)

    def _why(self, error: Any) -> str:
        if error.kind.name in ("pattern", "format"):
            schema: Any = self._document
            for step in error.schema_path[:-1]:
                schema = schema[step]
            if "description" in schema:
                return f"{str(error.instance)[:60]!r} is not {schema['description']}"
        why = str(error.message)
        return why if len(why) <= 300 else why[:297] + "..."


@cache
def checker(kind: Any) -> Checker:
    """The checker of a type, made once."""
    return Checker(kind)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Unknown fields are refused everywhere: a misspelt limit must not be taken for no limit."""
    if "description" in schema:
        schema = {**schema, "description": inspect.cleandoc(schema["description"])}  # before Python 3.13 it is indented
    return {**schema, "additionalProperties": False} if "properties" in schema else schema


_FORMATS: dict[str, Any] = {}  # of our own types, each checked by the type itself


def _schema(kind: Any) -> dict[str, Any]:
    schema = dict(cast(type[Wired], kind).SCHEMA)
    if name := schema.get("format"):
        _FORMATS[name] = _fits_format(kind)
    return schema


def _fits_format(kind: type[Wired]) -> Any:
    def fits_format(text: str) -> bool:
        try:
            kind.from_wire(text)
        except ValueError:
            return False
        return True

    return fits_format


# ── reading strangers' JSON

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _parse(data: bytes) -> Any:
    if data.count(b"[") + data.count(b"{") > DEPTH_LIMIT and _depth(data) > DEPTH_LIMIT:
        raise Malformed(f"nested deeper than {DEPTH_LIMIT} levels")
    try:
        # Decoded here and strictly: given bytes, json guesses among UTF-8, -16 and -32, and lets surrogates pass.
        text = data.decode()
        value = json.loads(
            text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant, parse_float=_finite, parse_int=_safe_int
        )
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate can be parsed, but never written again
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from None
    return value


def _depth(data: bytes) -> int:
    """How deep brackets are nested, those in strings left out; a string that never ends runs to the end."""
    deepest = depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NO_BRACKETS):
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _safe_int(text: str) -> int:
    if len(text) > 17 or abs(value := int(text)) > SAFE_INTEGER:
        raise ValueError(f"{text[:20]} is too large: integers stay below 2^53")
    return value
