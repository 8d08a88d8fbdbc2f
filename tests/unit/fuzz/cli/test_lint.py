# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz lint`` checks every file, prints file and line, and returns whether all are valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz.cli.main import main
from harness.exit_status import ExitStatus
from harness.scenario.scenario import HEADER
from tests.support.paths import CORPUS

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write one file with an error, one with a warning, one without either."""
    for name, steps in (("a", "hvc 0x0\ndance\n"), ("b", "movz x3, 0x5\nset x3 0x7\n"), ("c", "hvc 0x0\n")):
        (tmp_path / f"{name}.scn").write_text(f"{HEADER}\nabout A test.\n{steps}")
    return tmp_path


def test_all_files_are_checked(files: Path, capsys: Capture) -> None:
    assert main(["lint", str(files)]) == ExitStatus.USAGE
    out, err = capsys.readouterr()
    first, second, sum_ = out.splitlines()
    assert err == "", "what a check finds is its result"
    assert first.startswith(f"{files / 'a.scn'}:4: error: unknown step 'dance'")
    assert second.startswith(f"{files / 'b.scn'}:4: warning: `set x3 0x7` is delayed: `movz x3, 0x5` does not trap")
    assert sum_ == "1 error, 1 warning"


def test_status(files: Path, capsys: Capture) -> None:
    assert main(["lint", str(files / "c.scn")]) == ExitStatus.OK and capsys.readouterr() == ("", "")
    assert main(["lint", str(files / "b.scn")]) == ExitStatus.OK
    assert main(["lint", str(files / "b.scn"), "--strict"]) == ExitStatus.USAGE
    assert main(["lint", str(files / "c.scn"), "--strict"]) == ExitStatus.OK
    assert main(["lint", str(CORPUS / "seeds")]) == ExitStatus.OK


def test_json(files: Path, capsys: Capture) -> None:
    assert main(["lint", str(files), "--json"]) == ExitStatus.USAGE
    document = json.loads(capsys.readouterr().out)
    assert (document["version"], document["files"]) == (1, 3)
    assert [(row["line"], row["kind"]) for row in document["found"]] == [(4, "error"), (4, "warning")]
