# SPDX-License-Identifier: Apache-2.0
"""What a worker does when a machine is lost or shadowfuzz itself fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.campaign.failures import MAX_INTERNAL
from fuzz.campaign.worker import GiveUp
from fuzz.targets.runner import MAX_LOSSES
from harness.errors import AgentProtocolError, Remains, VmLost
from harness.vm.crash import Reproduction, from_text
from tests.support.fake_worker import DIVERGENCE, TEXT, Answer, FakeExecutor, checked, make_worker


def test_fake_lost_machine_is_a_crash_and_is_booted_again(tmp_path: Path) -> None:
    lost = VmLost("fake", "QEMU ended with status -9", "Kernel panic - not syncing: at 0xffff0000\n")
    b = make_worker(tmp_path, checked(), lost)
    for _ in range(3):
        b.worker.run_input(TEXT)
    assert (b.executor.boots, b.get("count", "scenarios"), b.count("lost")) == (2, 2, 1)
    (id_,) = b.findings.ids()
    texts = b.findings.texts(id_)
    assert id_.startswith("crash-") and "panic" in texts["console.txt"]
    assert texts["earlier-01.scn"] == b.findings.entry(id_).scenario == TEXT.decode()


LOST = VmLost("fake", "no answer to a scenario within 10 s", "", Remains({"pc": 1}, {"pc": "f+0x0"}))


GONE = VmLost("fake", "QEMU ended with status -9")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((LOST, checked(), LOST), Reproduction((2, 3), (0, 0), 0)),
        ((GONE, checked(), LOST), Reproduction((1, 3), (0, 0), 0)),  # a different loss does not count
        # Two scenarios ran before: all three reproduce it; the last two also do, or not.
        ((checked(),) * 5 + (LOST,) + (checked(), LOST) * 4, Reproduction((0, 3), (3, 3), 1)),
        ((checked(),) * 5 + (LOST,) + (checked(),) * 4 + (LOST,) + (checked(),) * 6, Reproduction((0, 3), (1, 3), 2)),
    ],
)
def test_fake_loss_is_tried_again_in_fresh_machines(
    tmp_path: Path, answers: tuple[Answer, ...], expected: Reproduction
) -> None:
    b = make_worker(tmp_path, checked(), checked(), LOST, LOST, again=answers)
    for _ in range(4):
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    texts = b.findings.texts(id_)
    report = from_text(texts["crash.json"])
    assert report.again == expected and report.kind == "hang"
    assert sorted(name for name in texts if name.startswith("earlier")) == ["earlier-01.scn", "earlier-02.scn"]
    assert b.findings.count(id_) == 2, "after it was reproduced, other members are only counted"
    assert b.get("reproduced", "yes") == 1


def test_fake_loss_that_is_not_reproduced_is_tried_with_another_member(tmp_path: Path) -> None:
    b = make_worker(tmp_path, LOST, LOST, LOST)
    for expected in (None, Reproduction((0, 3), (0, 0), 0), Reproduction((0, 3), (0, 0), 0)):
        b.worker.run_input(TEXT)
        (id_,) = b.findings.ids()
        assert from_text(b.findings.texts(id_)["crash.json"]).again == expected
    assert (b.findings.count(id_), b.get("reproduced", "no")) == (3, 2)


def test_fake_end_of_the_campaign_ends_the_tries(tmp_path: Path) -> None:
    b = make_worker(tmp_path, LOST)
    b.worker.ending = True
    b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert from_text(b.findings.texts(id_)["crash.json"]).again is None


def test_fake_machine_lost_while_confirming(tmp_path: Path) -> None:
    b = make_worker(tmp_path, checked(DIVERGENCE), AgentProtocolError("status 0x77"))
    b.worker.run_input(TEXT)
    assert [id_.partition("-")[0] for id_ in b.findings.ids()] == ["crash"]
    assert (b.count("flaky"), b.count("lost"), b.get("count", "scenarios")) == (1, 1, 1)


def test_fake_loss_of_the_machine_that_confirms_is_a_loss(tmp_path: Path) -> None:
    own = FakeExecutor([VmLost("fake", "QEMU ended with status -9")])
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 2, own_qemu=own)
    b.worker.run_input(TEXT)
    assert [id_.partition("-")[0] for id_ in b.findings.ids()] == ["crash"] and len(b.flaky.ids()) == 1
    b.worker.run_input(TEXT)
    assert b.executor.boots == 2


def test_fake_losses_in_a_row_end_the_worker(tmp_path: Path) -> None:
    lost = [VmLost("fake", "hangs")] * (MAX_LOSSES - 1)
    b = make_worker(tmp_path, *lost, checked(), *lost, VmLost("fake", "hangs"), VmLost("fake", "hangs"))
    for _ in range(2 * MAX_LOSSES - 1):
        b.worker.run_input(TEXT)
    with pytest.raises(GiveUp, match="lost 5 times in a row, the last time: fake: hangs"):
        b.worker.run_input(TEXT)
    assert b.count("lost") == 2 * MAX_LOSSES - 1


def test_fake_machine_that_runs_the_simplest_scenario_is_not_given_up(tmp_path: Path) -> None:
    """libFuzzer mutates one input several times: if the first mutant ends the machine, the next ones do, too."""
    lost = [VmLost("fake", "hangs")] * MAX_LOSSES
    b = make_worker(tmp_path, *lost, checked(), *lost, checked(), checked())
    for _ in range(2 * MAX_LOSSES + 1):
        b.worker.run_input(TEXT)
    assert (b.count("lost"), b.get("count", "scenarios")) == (2 * MAX_LOSSES, 1), "the test run is not counted"


def test_fake_internal_error_is_a_finding(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[KeyError("x99")] * MAX_INTERNAL)
    for _ in range(MAX_INTERNAL - 1):
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert id_.startswith("internal-") and "KeyError" in b.findings.texts(id_)["traceback.txt"]
    with pytest.raises(GiveUp, match="shadowfuzz itself failed"):
        b.worker.run_input(TEXT)
    assert b.count("internal") == MAX_INTERNAL
