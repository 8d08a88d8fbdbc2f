# SPDX-License-Identifier: Apache-2.0
"""The memory of a lost machine is carried to the files of all, and the finding in the shared database says where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.cluster.dump_sender import DumpSender
from fuzz.cluster.files import Files, FilesError
from fuzz.cluster.left_behind import hold, settle
from fuzz.store.database import Database, default_url
from fuzz.store.dumps import DUMPS, Dumps
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.replicate import Carrier
from harness.errors import Dump
from harness.scenario.scenario import Scenario, Step
from harness.vm.crash import CRASH, Report, from_text, to_text
from tests.support.kept import CRASHED, REPORT

SCENARIO = Scenario("One.", (), (Step("hvc", (0,)),))


class Fleet:
    """Nodes in directories of their own, one database, one place for files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = Files(f"file://{root}/files")
        self.shared = Database(default_url(root))
        self.store = Store(self.shared, FINDINGS)

    def lose(self, node: str, again: bool = False) -> Path:
        """Note a machine that a node lost, and its memory; return the node's directory."""
        place = self.root / "cluster" / "run" / node
        with hold(place, self.shared.url):
            dumps = Dumps(place / DUMPS)
            path = dumps.new_path()
            path.write_bytes(f"memory of {node}".encode())
            dump, _ = dumps.keep(Dump(str(path), 1 << 29, path.stat().st_size, 0.5), CRASHED.id)
        text = to_text(report_of(dump, again))
        Store(Database(default_url(place)), FINDINGS).add(CRASHED, SCENARIO, {CRASH: text})
        return place

    def of(self, place: Path) -> tuple[Carrier, DumpSender]:
        carrier = Carrier(Database(default_url(place)), self.shared, f"run/{place.name}")
        return carrier, DumpSender(self.files, place, self.shared)

    def dump(self) -> str:
        """Return where the dump is, by the shared database."""
        dump = from_text(self.store.texts(CRASHED.id)[CRASH]).remains.dump
        assert dump is not None
        return dump.path


def report_of(dump: Dump, again: bool) -> Report:
    report = replace(REPORT, remains=replace(REPORT.remains, dump=dump))
    return report if again else replace(report, again=None)


def test_the_finding_says_where_the_dump_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet = Fleet(tmp_path)
    carrier, sender = fleet.of(fleet.lose("one"))
    assert carrier.carry() == 1 and fleet.dump().startswith("dumps/crash-")
    assert sender.send() == 1 and sender.send() == 0
    assert carrier.carry() == 1 and carrier.carry() == 0
    url = fleet.dump()
    assert url == f"{fleet.files.url}/dumps/run/one/{CRASHED.id}/0001.kdump"
    assert Path(url.removeprefix("file://")).read_text() == "memory of one"
    assert main(["findings", "show", CRASHED.id, "--store", fleet.shared.url]) == 0
    assert url in capsys.readouterr().out.replace("\n", "")


def test_one_of_each_crash_is_carried(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    (carrier, sender), (other, late) = (fleet.of(fleet.lose(name)) for name in ("one", "two"))
    for step in (carrier.carry, sender.send, carrier.carry, other.carry):
        step()
    assert late.send() == 0 and other.carry() == 0 and "/run/one/" in fleet.dump()
    assert [path.name for path in (tmp_path / "files/dumps/run").iterdir()] == ["one"]
    assert fleet.store.count(CRASHED.id) == 2


def test_a_better_description_brings_its_own_dump(tmp_path: Path) -> None:
    """It is written before the first has been carried, or replaces the URL of another node: then its own follows."""
    fleet = Fleet(tmp_path)
    (carrier, sender), (other, late) = (fleet.of(fleet.lose(name, again=name == "two")) for name in ("one", "two"))
    for step in (carrier.carry, sender.send, carrier.carry, other.carry):
        step()
    assert fleet.dump().startswith("dumps/"), "the dump of the node that reproduced it, which is not there yet"
    assert late.send() == 1 and other.carry() == 1 and "/run/two/" in fleet.dump()


def test_a_worker_that_describes_it_again_needs_no_second_copy(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    place = fleet.lose("one")
    carrier, sender = fleet.of(place)
    local = Store(Database(default_url(place)), FINDINGS)
    before = from_text(local.texts(CRASHED.id)[CRASH])
    for step in (carrier.carry, sender.send, carrier.carry):
        step()
    url = fleet.dump()
    assert before.remains.dump is not None
    local.revise(CRASHED, SCENARIO, {CRASH: to_text(report_of(before.remains.dump, again=True))})
    (place / before.remains.dump.path).unlink()  # removed for a newer one
    assert carrier.carry() == 1 and fleet.dump() == before.remains.dump.path
    assert sender.send() == 1 and carrier.carry() == 1 and fleet.dump() == url


def test_a_dump_that_cannot_be_written_stays(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    place = fleet.lose("one")
    carrier, sender = fleet.of(place)
    (tmp_path / "files").write_text("in the way")
    with pytest.raises(FilesError, match=r"cannot (look at|write) file://"):
        sender.send()
    assert carrier.carry() == 1 and fleet.store.count(CRASHED.id) == 1, "the finding is not lost"
    assert len(list((place / DUMPS).glob("*/*"))) == 1
    assert settle(tmp_path, fleet.shared.url, fleet.files) == 0 and place.exists()
    (tmp_path / "files").unlink()
    assert settle(tmp_path, fleet.shared.url, fleet.files) == 1, "the next node on this machine carries it"
    assert "/run/one/" in fleet.dump() and not place.parent.exists()


def test_the_newest_goes_where_the_one_that_is_named_was_removed(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    for _ in range(5):
        place = fleet.lose("one")
    assert [path.stem for path in sorted((place / DUMPS).glob("*/*"))] == ["0003", "0004", "0005"]
    carrier, sender = fleet.of(place)
    assert carrier.carry() == 1 and fleet.dump().endswith("/0001.kdump")
    assert sender.send() == 1 and carrier.carry() == 1 and fleet.dump().endswith("/0005.kdump")
    assert len(list((tmp_path / "files").rglob("*.kdump"))) == 1


def test_what_is_gone_or_makes_no_sense_is_left(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    place = fleet.lose("one")
    _, sender = fleet.of(place)
    (dump,) = (place / DUMPS).glob("*/*")
    dump.unlink()
    assert sender.send() == 0 and sender.send() == 0
    local = Store(Database(default_url(place)), FINDINGS)
    for text in (
        "{}",
        to_text(report_of(Dump("dumps/../../secret/1.kdump", 1, 1, 0.1), again=False)),
        to_text(report_of(Dump("/etc/passwd", 1, 1, 0.1), again=False)),
    ):
        local.annotate(CRASHED.id, CRASH, text)
        assert sender.send() == 0
    assert not (tmp_path / "files").exists()
