# SPDX-License-Identifier: Apache-2.0
"""Intended changes: their file, and versions in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.findings.intended_changes import FILE, Changes, between, load_changes, release
from harness.vm.config import PROJECT

ROWS = load_changes(PROJECT / "corpus" / "known")

OLD, NEW = "6.1.192-2", "6.12.117-1"


def test_versions_in_order() -> None:
    assert [release(v) for v in ("6.12.117-1~deb12u1", "7.3-rc1", "x")] == [(6, 12, 117), (7, 3, 0), (0, 0, 0)]
    assert between(ROWS, NEW, NEW) == Changes(())
    assert between(ROWS, NEW, OLD) == between(ROWS, OLD, NEW) != Changes(())


ROW = """\
[[intended]]
id = "a"
since = "6.3"
events = ["exit"]
registers = ["x0"]
explains = "values"
values = ["0x1", "0x2"]
why = "w"
source = "s"
"""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('since = "6.3"', 'since = "six"', "since"),
        ('explains = "values"', 'explains = "magic"', "expected one of"),
        ('values = ["0x1", "0x2"]', 'values = ["0x1"]', "values"),
        ('registers = ["x0"]', "registers = []", "where it shows"),
        ('why = "w"', "", "why"),
        ('why = "w"', 'why = "w"\nwhen = "now"', "'when'"),
        ("[[intended]]", "[intended]", "rows"),
        ("[[intended]]", "[[known]]", "intended"),
        ('id = "a"', 'id = "a"\nbits = "0x1"', "bits"),
    ],
)
def test_a_wrong_row_is_one_sentence(tmp_path: Path, old: str, new: str, reason: str) -> None:
    (tmp_path / FILE).write_text(ROW)
    assert len(load_changes(tmp_path)) == 1
    (tmp_path / FILE).write_text(ROW.replace(old, new))
    with pytest.raises(InputError, match=reason):
        load_changes(tmp_path)
    (tmp_path / FILE).write_text(ROW + ROW)
    with pytest.raises(InputError, match="twice"):
        load_changes(tmp_path)
