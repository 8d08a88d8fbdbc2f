# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz corpus reach --show`` makes the project's pages from the project's counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz.cli.main import main
from harness.exit_status import ExitStatus
from tests.support.paths import CORPUS, ROOT


def test_kept_counts_give_the_kept_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = CORPUS / "reach.json"
    pages = {"--page": "reach.md", "--contract": "contract.md"}
    arguments = [word for option, name in pages.items() for word in (option, str(tmp_path / name))]
    assert main(["reach", "--show", str(counts), *arguments, "--json"]) in (ExitStatus.OK, ExitStatus.FAILED)
    for name in pages.values():
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text()
    assert json.loads(capsys.readouterr().out) == {"version": 1, **json.loads(counts.read_text())}
