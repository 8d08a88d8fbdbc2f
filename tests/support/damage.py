# SPDX-License-Identifier: Apache-2.0
"""Add damaged rows of many kinds to a database, next to its good ones."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.findings.finding import Subject, finding_id

TABLES = {"findings": 10, "texts": 5, "examples": 1, "marks": 1, "runs": 2, "samples": 1}
"""Tables, each with its share of the damaged rows."""
WRONG: tuple[object, ...] = (b"\xff\xfe", "", "[]", "{}", "null", "[" * 100_000, "9" * 6000, "NaN", -1, 2**62)
WRONG_VALUES: tuple[object, ...] = (
    *(None, True, -1, 2**70, 1e308, "", "\ud800", "\0", "x" * 5000, "kvm-vhe@", "/", "0x", [], [[]], {}, {"a": 1}),
)
NO_UTF8 = "CAST(x'6162eda080ff' AS TEXT)"
"""SQL for a text that is not valid text."""


def damage(file: Path, count: int, seed: int = 1) -> None:
    """Add ``count`` damaged rows; good rows are unchanged, but may get a damaged text."""
    rng = random.Random(seed)
    with sqlite3.connect(file) as connection:
        connection.row_factory = sqlite3.Row
        good = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in TABLES}
        for number in range(count):
            table = rng.choices(list(TABLES), list(TABLES.values()))[0]
            row = dict(rng.choice(good[table]))
            for column in {"id", "run"} & set(row):
                row[column] += f"-{number}"
            _spoil(rng, table, row)
            values = ", ".join(NO_UTF8 if value is NotImplemented else "?" for value in row.values())
            given = [value for value in row.values() if value is not NotImplemented]
            connection.execute(f"INSERT OR IGNORE INTO {table} ({', '.join(row)}) VALUES ({values})", given)
        for row in good["texts"]:  # of otherwise good findings
            new = {**row, "name": rng.choice(("fresh_qemu", "elsewhere", "releases.json", "target.toml", "crash.json"))}
            text = rng.choice(("5 2", '[{"hits": 3}]', _spoiled(rng, row["text"]), "x\0"))
            connection.execute("INSERT OR IGNORE INTO texts VALUES (?, ?, ?, ?)", (*list(new.values())[:3], text))
    connection.close()


def _spoil(rng: random.Random, table: str, row: dict[str, Any]) -> None:
    document = {"findings": "document", "runs": rng.choice(("document", "summary")), "texts": "text"}.get(table)
    if document is None or rng.random() < 0.4:
        column = rng.choice([name for name in row if name not in ("id", "run", "shelf")])
        row[column] = rng.choice((*WRONG, NotImplemented))
        return
    row[document] = _spoiled(rng, str(row[document]))
    if table == "findings":
        with suppress(Exception):  # else readers would stop at the id, which is computed from the rest
            _rename(row)
    if table == "findings" and rng.random() < 0.3:
        row["scenario"] = _cut(rng, str(row["scenario"]))


def _rename(row: dict[str, Any]) -> None:
    data = json.loads(row["document"])
    subject, other = (Subject(**data[name]) if data.get(name) else None for name in ("subject", "other"))
    assert subject is not None
    data["id"] = finding_id(data["kind"], tuple(data["signature"]), subject, other)
    row["document"], row["id"] = json.dumps(data), data["id"].encode("utf-8", "replace").decode()


def _spoiled(rng: random.Random, text: str) -> object:
    try:
        data = json.loads(text)
    except ValueError:
        return rng.choice((_cut(rng, text), *WRONG))
    for _ in range(rng.randint(1, 3)):
        places = list(_places(data))
        if places:
            holder, key = rng.choice(places)
            holder[key] = rng.choice(WRONG_VALUES)
            if rng.random() < 0.2:
                del holder[key]
    return json.dumps(data) if rng.random() < 0.9 else _cut(rng, json.dumps(data))


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield data, key
        yield from _places(data[key])


def _cut(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(("", "\0", "\x1b[2J", "9" * 30)) + text[at + rng.randrange(20) :]
