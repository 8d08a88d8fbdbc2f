# SPDX-License-Identifier: Apache-2.0
"""Findings: their JSON form against hostile text, their directory against dying and competing writers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.store import Store
from harness.compare import Divergence
from harness.errors import InputError
from harness.findings import Finding, Subject, Tries, difference, finding_id, from_json, to_json

SUBJECT = Subject("kvm-nvhe", "6.1.0-1-cloud-arm64", "ab" * 32, "spec")
DIVERGENCE = Divergence("restore", "x3", 0x1234, (1 << 64) - 1, "DABT_LOW", 7, 2, "prep_abort")


def finding(signature: tuple[str, ...] = ("restore", "xN", "DABT_LOW", "prep_abort"), detail: str = "") -> Finding:
    """Return a finding like those of a campaign."""
    differences = (difference(DIVERGENCE),)
    return Finding(
        "divergence", signature, SUBJECT, differences, 1, Tries(1, 1), Tries(1, 1), "2026-01-02T03:04:05+00:00", detail
    )


def test_json_round_trip() -> None:
    assert from_json(to_json(finding()), "f") == finding()


def test_values_are_hexadecimal_and_names_stay() -> None:
    named = Divergence("save", "class", "prep_wfx", "inject", "WFX", 1, 0, "prep_wfx")
    assert (difference(DIVERGENCE).expected, difference(DIVERGENCE).observed) == ("0x1234", "0xffffffffffffffff")
    assert (difference(named).expected, difference(named).observed) == ("prep_wfx", "inject")


def test_id_depends_on_signature_kernel_and_level() -> None:
    one = finding().id
    other_kernel = Subject("kvm-nvhe", "6.1.0-1-cloud-arm64", "cd" * 32, "spec")
    assert one == finding_id("divergence", finding().signature, SUBJECT)
    assert one != finding(("restore", "pc", "DABT_LOW", "prep_abort")).id
    assert one != finding_id("divergence", finding().signature, other_kernel)
    assert one.startswith("divergence-")


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_text_that_is_no_finding(text: str | bytes) -> None:
    with pytest.raises(InputError):
        from_json(text, "f")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_one_field_of_another_shape(data: st.DataObject) -> None:
    table = json.loads(to_json(finding()))
    key = data.draw(st.sampled_from(sorted(table)))
    value = data.draw(JSON)
    table[key] = value
    try:
        read = from_json(json.dumps(table), "f")
    except InputError:
        return
    assert to_json(read) == to_json(from_json(to_json(read), "f"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "RecursionError"),
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"version": 2}', "version: expected 1"),
        ('{"version": ' + "9" * 5000 + "}", "not JSON that a finding uses"),
        (b"\xff\xfe\x00", "not JSON that a finding uses"),
        ("x" * (1 << 21), "longer than"),
        (to_json(finding()).replace('"divergence-', '"divergence-0'), "id: expected"),
        (to_json(finding(detail="\\ud800")).replace("\\\\ud800", "\\ud800"), "no text"),
    ],
)
def test_what_is_wrong_is_said(text: str | bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        from_json(text, "some/finding.json")
    assert str(caught.value).startswith("some/finding.json") and "\n" not in str(caught.value)


def test_add_then_bump(tmp_path: Path) -> None:
    store = Store(tmp_path / "findings")
    assert store.ids() == () and store.count(finding().id) == 0
    assert store.add(finding(), "text", {"console.txt": "panic"})
    assert not store.add(finding(), "another text")
    assert store.bump(finding().id) == 3
    place = store.root / finding().id
    assert (place / "scenario.scn").read_text() == "text"
    assert (place / "console.txt").read_text() == "panic"
    assert int((place / "count").read_text()) == store.count(finding().id) == 3
    assert store.load(finding().id) == finding()
    assert store.ids() == (finding().id,)
    assert [path.name for path in store.root.iterdir()] == [finding().id]


def test_a_damaged_count_starts_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(finding(), "text")
    (tmp_path / finding().id / "count").write_text("-\x00many")
    assert store.bump(finding().id) == 1


def test_a_finding_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Store(tmp_path).load(finding().id)


def test_no_room_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "findings").write_text("a file in the way")
    with pytest.raises(OSError, match=r"exists|directory"):
        Store(tmp_path / "findings").add(finding(), "text")


def _add_many(root: Path, count: int) -> None:
    store = Store(root)
    for i in range(count):
        store.add(finding(("restore", f"r{i % 5}", "WFX", "")), "text")


def test_many_writers_count_every_member(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add_many, args=(tmp_path, 50)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    store = Store(tmp_path)
    assert [store.count(id_) for id_ in store.ids()] == [40] * 5


def _add_forever(root: Path) -> None:
    store = Store(root)
    for i in range(1_000_000):
        store.add(finding(("restore", f"r{i}", "WFX", "")), "scenario text")


def test_a_killed_writer_leaves_whole_findings_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for round_ in range(4):
        writer = multiprocessing.get_context("fork").Process(target=_add_forever, args=(tmp_path,))
        writer.start()
        deadline = time.monotonic() + 10
        while len(store.ids()) <= round_ and time.monotonic() < deadline:
            time.sleep(0.001)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        for id_ in store.ids():
            assert store.load(id_).id == id_
            assert (tmp_path / id_ / "scenario.scn").read_text() == "scenario text"
    store.clean()
    assert all(path.name in store.ids() for path in tmp_path.iterdir())
