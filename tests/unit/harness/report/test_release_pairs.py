# SPDX-License-Identifier: Apache-2.0
"""The page about release pairs is current, and is generated from data alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.findings.intended_changes import load_changes
from harness.report.release_pairs import RUNS, kept, page, read_runs
from harness.vm.config import PROJECT

PAGE = PROJECT / "docs" / "against.md"
ROWS = load_changes(PROJECT / "corpus" / "known")


def test_the_page_is_current() -> None:
    text = page(ROWS, read_runs(PROJECT / RUNS))
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "run UPDATE_DOCS=1 pytest tests/unit/harness/report/test_release_pairs.py"
    assert all(f"`{row.id}`" in text and row.source.replace("|", "\\|") in text for row in ROWS)


def test_what_is_kept_of_a_summary(tmp_path: Path) -> None:
    summary = {
        **{"target": "one", "kernel_release": "6.1", "seconds": 1.0, "jobs": 1, "seed": 3},
        **{"scenarios": 9, "lost_vms": 0},
        **{"against": ["other", "6.12", "ab"], "relations": {"against": 5, "save": 6}, "out": "/somewhere"},
        **{"known_by_entry": {"psci-1.3": 2, "reset-values": 1}, "unchecked": {"against: x": 1, "switch: y": 2}},
        "findings": [{"what": "against.exit.pc at IRQ: 1 on one, 2 on other"}, {"what": "host.pc at RESET"}],
    }
    run = kept(summary, ROWS, "All of it a page.")
    assert "out" not in run and run["intended"] == {"psci-1.3": 2} and run["unchecked"] == {"against: x": 1}
    (tmp_path / "a.json").write_text(json.dumps(run))
    text = page(ROWS, read_runs(tmp_path))
    assert "one against other" in text and "against.exit.pc at IRQ" in text and "host.pc" not in text
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(InputError, match=r"b\.json"):
        read_runs(tmp_path)
