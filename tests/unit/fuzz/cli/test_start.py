# SPDX-License-Identifier: Apache-2.0
"""The very beginning of the command: interrupts while it is imported, streams that are closed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.store.database import Database
from tests.support.kept import filled
from tests.support.paths import ROOT

START = "from fuzz.cli.start import start; sys.exit(start())"


def python(program: str, *argv: str, closed: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program; ``closed`` are redirections of a shell's."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program, *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kept") / "campaign"
    database: Database = filled(root)
    database.close()
    return root


@pytest.mark.parametrize("when", ["fuzz.cli.main", "harness.exit_status", "click"])
def test_an_interrupt_while_it_is_imported_is_no_traceback(when: str) -> None:
    interrupt = (
        "import os, sys, signal\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {when!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    done = python(interrupt + START, "doctor")
    assert done.returncode in (-signal.SIGINT, 130)
    assert "Traceback" not in done.stderr and done.stderr in ("", "shadowfuzz: interrupted\n")


@pytest.mark.parametrize(
    ("closed", "status"), [(">&-", 141), (">&- 2>&-", 141), ("2>&-", 1), ("<&-", 1), (">/dev/full", 3)]
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_closed_streams(closed: str, status: int, form: tuple[str, ...], campaign: Path) -> None:
    done = python(f"import sys; {START}", "findings", "list", "--campaign", str(campaign), *form, closed=closed)
    assert done.returncode == status, "1 means that there are findings, and only that"
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr


def test_from_then_on_an_interrupt_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        from fuzz.cli import start

        monkeypatch.setattr("fuzz.cli.start.main", lambda: signal.getsignal(signal.SIGINT))
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        assert start.start() is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
