# SPDX-License-Identifier: Apache-2.0
"""Check a document against a schema of docs/schema, and that the schema lists every key that is there."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator


def check_schema(schema: dict[str, Any], document: object) -> None:
    """Fail unless a document fits a schema; a key that the schema does not list fails, too."""
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(_closed(schema)).validate(document)


def _closed(part: Any) -> Any:
    """Return a schema in which objects have no keys but those listed: readers accept others, we do not write them."""
    if isinstance(part, list):
        return [_closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    closed = {name: _closed(each) for name, each in part.items()}
    if isinstance(closed.get("properties"), dict) and "type" in closed:
        closed.setdefault("additionalProperties", False)
    return closed
