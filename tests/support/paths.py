# SPDX-License-Identifier: Apache-2.0
"""Where a test finds the files of the project, whatever folder it is in itself."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS, GOLDEN = ROOT / "corpus", ROOT / "tests" / "golden"
