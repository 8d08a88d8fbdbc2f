# SPDX-License-Identifier: Apache-2.0
"""Paths of the project's files that commands read by default."""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.vm.config import PROJECT

CORPUS = PROJECT / "corpus"
KNOWN_DIR = CORPUS / "known"
"""The catalogue of known divergences, and the intended changes between releases."""
REGRESSIONS = CORPUS / "regressions"
KEPT = REGRESSIONS / "expected.toml"
"""The expected results of the kept findings, by target."""
SHOWN = REGRESSIONS / "shown.json"
"""The divergences of each kept finding that a mail and a program show (harness/handover/shown.py)."""
CRASHES = CORPUS / "crashes" / "expected.toml"
"""Kept findings that end the machine."""
ALARMS = CORPUS / "alarms" / "expected.toml"
"""Kept findings that the target's kernel reports in its log."""
SEEDS = (CORPUS / "seeds", REGRESSIONS)
"""The initial scenarios of a campaign."""
DEFAULT_OUT = Path("out/campaign")
"""The default directory of a campaign."""


def out_words(out: Path) -> str:
    """Return the option that names a campaign's directory, after a space; empty for the default directory."""
    return "" if out == DEFAULT_OUT else f" --campaign {shlex.quote(str(out))}"
