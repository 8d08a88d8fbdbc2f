# SPDX-License-Identifier: Apache-2.0
"""Paths of the project's files for tests in any folder."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS, GOLDEN = ROOT / "corpus", ROOT / "tests" / "golden"
