# SPDX-License-Identifier: Apache-2.0
"""Where the project keeps what commands read by default."""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.vm.config import PROJECT

CORPUS = PROJECT / "corpus"
KNOWN_DIR = CORPUS / "known"
"""The catalogue of known divergences, and what changed from release to release."""
REGRESSIONS = CORPUS / "regressions"
KEPT = REGRESSIONS / "expected.toml"
"""What the kept findings show on which target."""
SHOWN = REGRESSIONS / "shown.json"
"""What a mail and a program show of each of them (harness/handover/shown.py)."""
CRASHES = CORPUS / "crashes" / "expected.toml"
"""Those that end the machine."""
ALARMS = CORPUS / "alarms" / "expected.toml"
"""Those of which the target's kernel complained in its log."""
SEEDS = (CORPUS / "seeds", REGRESSIONS)
"""The scenarios that a campaign starts from."""
DEFAULT_OUT = Path("out/campaign")
"""The directory of a campaign that names none."""


def out_words(out: Path) -> str:
    """Return how a command names a campaign's directory, with a space before; nothing for the default one."""
    return "" if out == DEFAULT_OUT else f" --campaign {shlex.quote(str(out))}"
