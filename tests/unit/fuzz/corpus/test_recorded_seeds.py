# SPDX-License-Identifier: Apache-2.0
"""Recording: files of the program, lines of progress; seeds that are tried and written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fuzz.corpus import recordings
from fuzz.corpus.extract_seeds import ExtractedSeeds, Seed
from fuzz.corpus.recorded_seeds import TRIES, check_room, seeds_json, seeds_text, try_seeds, write_seeds
from fuzz.targets import record_program
from fuzz.targets.record_program import LinuxGuest, RecordOptions, check_guest, named_files
from fuzz.targets.target_set import TargetSet
from harness.errors import InputError, VmLost
from harness.scenario.scenario import load
from tests.support.fake_worker import DIVERGENCE, SCENARIO, FakeExecutor, checked

SHOWN = Seed("recorded_hvc", SCENARIO, "HVC64", 0x5A00_0000, None, 7, 3)
NEVER = Seed("recorded_wfx", SCENARIO, "WFX", 0x0600_0000, None, 2, 5)
QUIET: Any = lambda line: None  # noqa: E731


@pytest.mark.parametrize(
    ("items", "files"),
    [
        ([], {}),
        (["/a/disk", "b=/c/image=x"], {"disk": Path("/a/disk"), "b": Path("/c/image=x")}),
    ],
)
def test_files_have_names(items: list[str], files: dict[str, Path]) -> None:
    assert named_files(items) == files


@pytest.mark.parametrize("items", [["=x"], ["a/b=x"], ["a=x", "/y/a"]])
def test_files_without_a_unique_name(items: list[str]) -> None:
    with pytest.raises(InputError, match="each name once and without a slash"):
        named_files(items)


def done(status: str, console: str) -> Any:
    return SimpleNamespace(end=SimpleNamespace(status=status), console=console)


def test_a_linux_guest_must_reach_user_space() -> None:
    options = RecordOptions("kvm-nvhe", Path("out"), 1, 1, guest=LinuxGuest(1, 256, ""))
    check_guest(options, done("exited", f"x\n{record_program.GUEST_LINE}\n"))
    check_guest(options, done("stopped", ""))
    check_guest(RecordOptions("kvm-nvhe", Path("out"), 1, 1, ("a",)), done("exited", ""))
    with pytest.raises(VmLost, match="before user space"):
        check_guest(options, done("exited", "panic"))


def test_output_of_the_machine_is_shown_by_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 1.0, 3.0))
    monkeypatch.setattr(record_program, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    said, shown = list[str](), list[str]()
    progress = record_program._Progress(said.append, shown.append)
    progress.tick(SimpleNamespace(printed="one\r\ntw", exits={"HVC64": 1}))  # type: ignore[arg-type]
    progress.tick(SimpleNamespace(printed="o\nthree", exits={"HVC64": 4, "WFX": 2}))  # type: ignore[arg-type]
    assert shown == ["one", "two"]
    assert said == ["3 s, 6 exits, now 2 exits a second (HVC64 66 %, WFX 33 %)"]
    progress.end()
    assert shown[-1] == "three"


def test_reading_reports_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(recordings, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(recordings, "PROGRESS_SECONDS", 1.0)
    said: list[str] = []

    def records() -> Iterator[int]:
        yield from range(2500)

    read = recordings.read_with_progress(records(), said.append)  # type: ignore[arg-type]
    assert list(read) == list(range(2500))  # type: ignore[comparison-overlap]
    assert said == ["1024 records", "2048 records"]


def test_seeds_that_do_not_show_their_exit_are_not_written(tmp_path: Path) -> None:
    fake = FakeExecutor([checked(DIVERGENCE)])
    result = ExtractedSeeds((SHOWN, NEVER), (), exits=9)
    check_room(result.seeds, tmp_path)
    with TargetSet([fake]) as targets:
        tried = try_seeds(targets, result.seeds, QUIET)
    assert len(fake.fresh) == 1 + TRIES, "the second one is run again, in case an interrupt ended it"
    assert (tried[SHOWN.name].shows, tried[NEVER.name].shows) == (True, False)
    assert write_seeds(result, tried, tmp_path / "new") == 1
    (path,) = (tmp_path / "new").iterdir()
    assert path.name == "recorded_hvc.scn" and load(path) == SCENARIO
    text = seeds_text(result, tried, tmp_path, 1)
    assert "       7  recorded_hvc  (restore.xN/HVC64/prep_hvc)\n" in text
    assert "       2  recorded_wfx  (does not show that exit here: not written)\n" in text
    rows: Any = seeds_json(result, tried)["scenarios"]
    assert [row["shows"] for row in rows] == [True, False] and rows[0]["exits"] == 7
    assert "shows" not in seeds_json(result, {})["scenarios"][0]  # type: ignore[index]
    with pytest.raises(InputError, match=r"recorded_hvc\.scn is there already"):
        check_room(result.seeds, tmp_path / "new")
    assert write_seeds(result, {}, tmp_path / "all") == 2, "seeds that were not tried are written"
