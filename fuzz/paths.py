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


def out_words(out: Path, store: str = "") -> str:
    """Return the options that name a campaign's directory and its database, after a space; empty for the defaults."""
    words = [] if out == DEFAULT_OUT else ["--campaign", str(out)]
    words += ["--store", store] if store else []
    return "".join(f" {shlex.quote(word)}" for word in words)
