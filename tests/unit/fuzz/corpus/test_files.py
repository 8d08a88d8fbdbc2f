# SPDX-License-Identifier: Apache-2.0
"""Scenarios of files and directories, and the errors for other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.corpus.files import find_scenarios, read_corpus
from harness.errors import InputError
from harness.scenario.scenario import format_scenario
from tests.support.fake_worker import SCENARIO

TEXT = format_scenario(SCENARIO)


def test_files_below_a_directory_are_sorted_and_unique(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    b, a = tmp_path / "b.scn", tmp_path / "below" / "a.scn"
    for path in (b, a, tmp_path / "other.txt"):
        path.write_text(TEXT)
    missing = tmp_path / "missing.scn"
    assert find_scenarios([a, tmp_path, missing]) == (a, b, missing), "load() reports the error of the last one"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="a directory without scenarios"):
        find_scenarios([tmp_path / "empty"])


def test_a_corpus_has_files_without_a_suffix_and_invalid_files(tmp_path: Path) -> None:
    good, hashed, bad = tmp_path / "good.scn", tmp_path / "0123abcd", tmp_path / "bad.scn"
    good.write_text(TEXT)
    hashed.write_text(TEXT)
    bad.write_text("no scenario")
    (tmp_path / "notes.txt").write_text("not looked at")
    corpus = read_corpus([tmp_path])
    assert corpus.scenarios == ((hashed, SCENARIO), (good, SCENARIO)) and corpus.invalid == (bad,)
    with pytest.raises(InputError):
        read_corpus([bad])
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "bad.scn").write_text("no scenario")
    with pytest.raises(InputError, match=r"no scenario in it \(1 files that are none\)"):
        read_corpus([tmp_path / "only"])
