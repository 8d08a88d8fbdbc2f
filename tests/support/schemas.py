# SPDX-License-Identifier: Apache-2.0
"""Check a document against a schema of docs/schema, and that the schema lists every key of the document."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from jsonschema import Draft202012Validator


def check_schema(schema: dict[str, Any], document: object) -> None:
    """Fail unless a document fits a schema; a key that the schema does not list is also an error."""
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(_closed(schema)).validate(document)


def _closed(part: Any) -> Any:
    """Return a schema whose objects allow only the listed keys: readers accept other keys, but none are written."""
    if isinstance(part, list):
        return [_closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    closed = {name: _closed(each) for name, each in part.items()}
    if isinstance(closed.get("properties"), dict) and "type" in closed:
        closed.setdefault("additionalProperties", False)
    return closed


def schema_of(kind: type[Any]) -> dict[str, Any]:
    """Return the schema of a dataclass's JSON: no negative numbers, all keys required."""
    hints = typing.get_type_hints(kind)
    properties = {field.name: _part(hints[field.name]) for field in fields(kind)}
    return {"type": "object", "required": list(properties), "properties": properties}


_PLAIN: Mapping[object, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    float: {"type": "number"},
}


def _part(hint: Any) -> dict[str, Any]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if is_dataclass(hint):
        return {"$ref": f"#/$defs/{hint.__name__}"}  # type: ignore[union-attr]  # a class has a name
    if origin is tuple:
        return {"type": "array", "items": _part(inner[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _part(inner[1])}
    assert origin is types.UnionType and inner[1] is type(None), hint
    part = _part(inner[0])
    return {"anyOf": [part, {"type": "null"}]} if "$ref" in part else {**part, "type": [part["type"], "null"]}
