# SPDX-License-Identifier: Apache-2.0
"""JSON files of the project: any error in the file, or in its decoding, is one InputError."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.jsonfile import reading


def test_what_was_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('{"a": [1]}')
    with reading(tmp_path / "f", "a table") as document:
        assert document == {"a": [1]}


@pytest.mark.parametrize(
    "text", ["", "{", "null", "{}", '{"a": 1}', '{"a": []}', "[" * 100_000, "\xff", "NaN", "[1e999]", '"\\ud800"']
)
def test_other_text_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="not a table"), reading(tmp_path / "f", "a table") as document:
        document["a"][0]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"), reading(tmp_path / "f", "a table"):
        pass
