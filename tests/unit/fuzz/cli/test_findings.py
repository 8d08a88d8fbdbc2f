# SPDX-License-Identifier: Apache-2.0
"""Stored findings in the terminal, and in every machine-readable format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fuzz.cli.main import main
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import find_finding, kept_rows, stories
from fuzz.store.runs import History
from fuzz.triage.findings_text import Background, finding_text, overview
from harness.errors import InputError
from harness.findings.finding import Finding, Tries
from harness.report.finding_data import groups
from harness.report.terminal import Style
from harness.scenario.scenario import format_scenario, parse
from tests.support.kept import CRASHED, OLD_CRASH, filled

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign's directory."""
    path = tmp_path_factory.mktemp("campaign")
    filled(path)
    return path


def call(capsys: Capture, *argv: str) -> tuple[int, str]:
    status = main(["findings", *argv])
    return status, capsys.readouterr().out


def test_list(root: Path, capsys: Capture) -> None:
    status, out = call(capsys, "--clusters", "--out", str(root))
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == "8 clusters confirmed, 3 of them new"
    assert lines[1].split()[:4] == ["1x", "new", "crash", "crash:"], "crashes come first"
    new = [line.split()[1] == "new" for line in lines if "x  " in line[:10]]
    assert new == [True] * 3 + [False] * 6, "then what is new"
    assert "kvm-nvhe, Linux 6.1.0-x, like reset-keeps-banked-registers" in out
    assert "     2x  " in out and "flaky: not reproduced" in out
    assert "\x1b" not in out and "\\x1b" in out
    assert max(map(len, lines)) < 160


def test_problems_come_before_errata_and_flaky_ones_are_counted(root: Path, capsys: Capture) -> None:
    status, out = call(capsys, "--out", str(root))
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == "3 problems that no erratum explains"
    assert "crash" in lines[1] and ", verdict crash" in lines[1], "lost machines come first"
    shown = [line.split() for line in lines if line.startswith("      shadowfuzz findings show ")]
    for words in shown:  # as printed
        assert call(capsys, *words[2:])[0] == 0
    assert "errata that occurred again" in out and "  reset-keeps-banked-registers" in out
    (mail,) = (line for line in lines if line.endswith("  prints a mail about one of them"))
    status, text = call(capsys, *mail.partition("  prints")[0].split()[2:])
    assert status == 0 and text.startswith("To: ")
    assert lines[-1] == "1 flaky: not reproduced when run again (--clusters lists them)"


def test_the_runs_that_each_occurred_in(tmp_path: Path, capsys: Capture) -> None:
    history = History(filled(tmp_path))
    found = {"findings": [{"id": CRASHED.id}], "errata": [{"id": "reset-keeps-banked-registers"}]}
    history.end(history.begin("2026-01-04", {"target": "kvm-nvhe"}), found)
    lines = call(capsys, "--out", str(tmp_path))[1].splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"  {CRASHED.id}"))
    assert any(line.startswith("      seen once in 1 of 2 runs, from ") for line in lines[at : at + 6])
    (row,) = (line for line in lines if line.startswith("  reset-keeps-banked-registers"))
    assert row.split()[2:4] == ["1/2", "2026-01-02"]
    assert len(row) <= 100


def test_problems_are_sorted_as_asked(root: Path, capsys: Capture) -> None:
    def ids(*argv: str) -> list[str]:
        shown = call(capsys, "--out", str(root), *argv)[1].splitlines()
        return [line.split()[3] for line in shown if line.startswith("      shadowfuzz findings show ")]

    plain, last = ids(), ids("--sort", "last")
    assert sorted(plain) == sorted(last) and plain == ids("--sort", "count")
    found = {story.id: story.kept.last_seen for story in stories(Database(default_url(root)))}
    assert [found[id_] for id_ in last] == sorted((found[id_] for id_ in plain), reverse=True)
    assert call(capsys, "--sort", "size", "--out", str(root))[0] == 2


def test_marks_of_a_finding(tmp_path: Path, capsys: Capture) -> None:
    filled(tmp_path)
    out = ("--out", str(tmp_path))
    assert call(capsys, "set", CRASHED.id, *out)[0] == 2, "nothing to set"
    given = ("--status", "reported", "--assignee", "ada", "--note", "see \x1b")
    status, said = call(capsys, "set", CRASHED.id, *given, *out)
    assert status == 0 and said.splitlines()[:2] == [CRASHED.id, "  status    reported"] and "\x1b" not in said
    assert call(capsys, "set", CRASHED.id, "--note", "fixed in 6.2", *out)[0] == 0
    shown = call(capsys, "show", CRASHED.id, *out)[1]
    assert "  status    reported\n  assignee  ada\n  note      fixed in 6.2\n" in shown
    listed = call(capsys, "--status", "reported", *out)[1]
    assert listed.startswith("1 problem that") and f"  {CRASHED.id}  reported, ada, verdict crash" in listed
    assert call(capsys, "--assignee", "bob", *out)[1].startswith("no problem")
    assert call(capsys, "set", CRASHED.id, "--note", "x" * 5000, *out)[0] == 2
    assert call(capsys, "set", *out)[0] == 2 and call(capsys, "show", "--clusters", *out)[0] == 2


def test_only_new_findings(root: Path, tmp_path: Path, capsys: Capture) -> None:
    status, out = call(capsys, "--new", "--clusters", "--out", str(root))
    assert status == 1 and out.startswith("3 clusters confirmed, 3 of them new\n") and "like" not in out
    (crash, *others) = json.loads(call(capsys, "--new", "--format", "json", "--out", str(root))[1])["findings"]
    assert crash["kind"] == "crash" and len(others) == 2 and all(f["new"] and f["like"] == [] for f in others)
    History(Database(default_url(tmp_path))).begin("2026-01-01", {})
    assert call(capsys, "--new", "--out", str(tmp_path)) == (0, "no new findings\n")


def test_a_cluster_is_new_if_it_is_new_on_one_target(root: Path) -> None:
    database = Database(default_url(root))
    (one,) = (group for group in groups(stories(database)) if group.name == "host.elr_el1/RESET")
    (story,) = one.stories
    elsewhere = replace(story, like=())
    assert not one.new
    (both,) = groups((story, elsewhere))
    assert both.new
    out = "\n".join(overview((story, elsewhere), Style()))
    assert "6.1.0-x, new\n" in out and "6.1.0-x, like reset-keeps-banked-registers\n" in out


def test_show_has_all_parts(root: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it: in 80 columns the table is another
    everything = json.loads(call(capsys, "--out", str(root), "--format", "json")[1])["findings"]
    one = next(f for f in everything if f["sites"] and f["confirmed"] and f["signature"][0] == "restore")
    status, out = call(capsys, "show", one["id"].partition("-")[2][:10], "--out", str(root), "--trace")
    assert status == 0
    assert "  like      esr-el1-sign-extended" in out and "which does not prove the same cause" in out
    for text in ("verdict ", "repeat ", "level kernel ", "not measured", "shadowfuzz-scenario 1", "differences"):
        assert text in out
    assert f"shadowfuzz replay {root}/findings/{one['id']}/scenario.scn --target kvm-nvhe --level spec" in out
    assert "predicted    observed" in " ".join(out.split()).replace("predicted observed", "predicted    observed")
    assert "    0 H" in out, "the trace"


def test_a_crash_shows_its_console_and_no_escapes(root: Path, capsys: Capture) -> None:
    for id_ in (OLD_CRASH.id, CRASHED.id):
        status, out = call(capsys, "show", id_, "--out", str(root))
        assert status == 0 and "console.txt" in out and "Kernel panic" in out
        assert "  new       no erratum of kvm-nvhe explains it\n" in out
        assert "\x1b" not in out


def test_a_crash_shows_its_state_and_its_reproduction(root: Path, capsys: Capture) -> None:
    _, out = call(capsys, "show", CRASHED.id, "--out", str(root))
    for text in (
        "verdict crash: the host kernel oopsed",
        "how           the host kernel oopsed in kvm_handle_mmio_return+0x0",
        "pc            0x8000000000000000 psci_sys_reset+0x24",
        "dumps/crash-0/0001.kdump (13.4 MiB for 512 MiB of RAM, written in 0.6 s)",
        "missing       no <x>",
        "the last scenario alone, in fresh machines: 0 of 3",
        "after the 2 scenarios that ran before it: 2 of 3",
        "HCR_EL2 0x0000000080000000",
        "v0 0x80000000000000000000000000000000",
    ):
        assert text in out, text
    place = f"{root}/findings/{CRASHED.id}"
    assert f"replay --same-vm {place}/earlier-02.scn {place}/earlier-01.scn {place}/scenario.scn --target" in out
    found = json.loads(call(capsys, "--out", str(root), "--format", "json")[1])["findings"]
    crash = next(f["crash"] for f in found if f["id"] == CRASHED.id)
    assert (crash["kind"], crash["again"]["sequence"], crash["remains"]["registers"]["pc"]) == (
        "oops",
        [2, 3],
        hex(1 << 63),
    )
    assert "reproduced: the last scenario alone" in call(capsys, "--out", str(root), "--format", "junit")[1]
    assert "reproduced: the last scenario alone" in call(capsys, "--out", str(root), "--format", "sarif")[1]


def test_json(root: Path, capsys: Capture) -> None:
    found = json.loads(call(capsys, "--out", str(root), "--format", "json")[1])["findings"]
    assert {f["kind"] for f in found} == {"crash", "divergence"}
    assert [f["verdict"] for f in found if not f["confirmed"]] == ["flaky"]
    assert all(f["why"] for f in found)
    assert {"kvm", "crash", "unexplained"} <= {f["verdict"] for f in found}
    likes = {f["cluster"]: f["like"] for f in found if f["confirmed"]}
    assert likes["host.elr_el1/RESET"] == ["reset-keeps-banked-registers"] and likes["restore.pc/WFX/none"] == []
    assert all(f["new"] == (not f["like"]) for f in found)


def test_junit(root: Path, capsys: Capture) -> None:
    suite = ElementTree.fromstring(call(capsys, "--out", str(root), "--format", "junit")[1])
    cases = suite.findall("testcase")
    assert int(suite.attrib["tests"]) == len(cases)
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure")) == 3, "what is new"
    assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped")) == len(cases) - 3
    assert {case.attrib["type"] for case in suite.findall("testcase/failure")} == {"new"}
    why = [case.attrib["message"].partition(": ")[0] for case in suite.findall("testcase/skipped")]
    assert why.count("like reset-keeps-banked-registers") == 2 and why.count("flaky") == 1


def test_sarif(root: Path, capsys: Capture) -> None:
    log: dict[str, Any] = json.loads(call(capsys, "--out", str(root), "--format", "sarif")[1])
    (run,) = log["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert log["version"] == "2.1.0" and len(run["results"]) > 3
    for result in run["results"]:
        assert result["ruleId"] in rules and result["message"]["text"]
        assert result["level"] in ("error", "warning", "note")
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert sum(result["properties"]["new"] for result in run["results"]) == 3


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["show"], "Missing argument 'ID'"),
        (["show", "crash-cea6", "--new"], "No such option '--new'"),
        (["list", "x"], "unexpected extra argument (x)"),
        (["show", "nosuch"], "no such finding"),
        (["show", "mmio-load-loses-sign"], "a kept finding, of no campaign"),
        (["show", "divergence"], "several findings"),
    ],
)
def test_bad_usage(root: Path, argv: list[str], reason: str, capsys: Capture) -> None:
    assert main(["findings", *argv, "--out", str(root)]) == 2
    assert reason in capsys.readouterr().err


def test_open(root: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["findings", "open", "--out", str(root)]) == 0
    assert opened == [(root / "report.html").as_uri()] and (root / "report.html").read_text()
    capsys.readouterr()


def test_a_directory_without_findings(tmp_path: Path, capsys: Capture) -> None:
    assert main(["findings", "--out", str(tmp_path)]) == 2
    assert "no campaign's directory" in capsys.readouterr().err
    assert list(overview((), Style())) == ["no findings"]


def test_clusters_do_not_depend_on_the_target(root: Path) -> None:
    database = filled(root / "again")
    found = stories(database)
    assert [g.name for g in groups(found)] == [g.name for g in groups(tuple(reversed(found)))]
    with pytest.raises(InputError):
        find_finding(database, "zzz")
    assert all("\x1b" not in line for story in found for line in finding_text(story, Style(), "out", Background()))


def test_a_finding_shows_the_text_of_its_erratum(root: Path) -> None:
    story = next(s for s in stories(filled(root / "words")) if s.kept.finding.kind == "divergence")
    row = kept_rows()[0]
    text = "\n".join(finding_text(story, Style(), "out", Background((row,))))
    words = " ".join(text.split())
    assert row.summary in words and row.source in words.replace("- ", "-")
    assert all(len(line) <= 100 for line in text.splitlines() if line.startswith(("  why", "  source", "  in KVM")))


@pytest.mark.parametrize("before", [0, 2])
def test_an_alarm_shows_its_rate_its_splat_and_its_replay_command(tmp_path: Path, capsys: Capture, before: int) -> None:
    never = Tries(0, 0)
    alarm = Finding("alarm", ("warn", "kvm_put_kvm"), OLD_CRASH.subject, (), 0, never, never, "2026-01-01", "a WARN")
    scenario = parse(b"shadowfuzz-scenario 1\nabout A call.\nhvc 0x0\n")
    earlier = {f"earlier-{n:02}.scn": format_scenario(scenario) for n in range(1, before + 1)}
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    store.add(alarm, scenario, {"console.txt": "WARNING: a.c:1\nCall trace:", "fresh_qemu": "2 3", **earlier})
    status, out = call(capsys, "--out", str(tmp_path))
    assert status == 1 and f"  {alarm.id}  new, verdict alarm\n      a WARN\n" in out
    status, out = call(capsys, "show", alarm.id[:9], "--out", str(tmp_path))
    said = " ".join(out.split())
    assert status == 0 and "in fresh machines: 2 of 3 (95 %:" in said and "Call trace:" in out
    assert (f"after {before} of the scenarios that ran before it" in said) is bool(before)
    assert ("replay --same-vm" in said and "earlier-02.scn" in said) is bool(before)
    found = json.loads(call(capsys, "--format", "json", "--out", str(tmp_path))[1])["findings"]
    assert [(each["kind"], each["verdict"]) for each in found] == [("alarm", "alarm")]
    for form in ("sarif", "junit"):
        assert "kvm_put_kvm" in call(capsys, "--format", form, "--out", str(tmp_path))[1]
    assert main(["report", "--campaign", str(tmp_path), "--out", str(tmp_path / "report.html")]) == 0
    assert "2 of 3 (95 %:" in (tmp_path / "report.html").read_text()
