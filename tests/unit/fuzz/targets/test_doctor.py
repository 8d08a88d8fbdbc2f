# SPDX-License-Identifier: Apache-2.0
"""Doctor's rows of what makes campaigns quicker: that it is not there is no error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.compiled.use import PURE
from fuzz.targets import doctor, fast_qemu
from fuzz.targets.doctor import (
    Diagnosis,
    FastState,
    check_checker,
    check_fast_qemu,
    diagnosis_json,
    diagnosis_text,
    find_fast_state,
)
from fuzz.targets.fast_qemu import Comparison, set_up
from harness.errors import SetupError
from harness.vm.build.doctor import TargetState
from harness.vm.build.prepare import PreparedTarget
from harness.vm.cache import Cache
from harness.vm.config import load_config
from harness.vm.fast_qemu.build import FastQemu


def diagnosed(compiled: bool, fast: FastState) -> Diagnosis:
    return Diagnosis((check_checker(compiled, pure=False), check_fast_qemu(fast)), (), compiled, fast)


def test_what_is_not_there_is_no_error_and_has_its_command() -> None:
    found = diagnosed(False, FastState(None))
    text, document = diagnosis_text(found), diagnosis_json(found)
    assert found.ok and text.endswith("everything is there") and "MISSING" not in text
    assert "(shadowfuzz setup)" in text and "(shadowfuzz setup --fast-qemu)" in text
    assert (document["compiled"], document["fast_qemu"]) == (False, None)


def test_what_is_there_is_named() -> None:
    fast = FastState(FastQemu(Path("/cache/qemu"), "7.2.22", "1:7.2+1"), ("kvm-nvhe", "kvm-vhe"))
    found = diagnosed(True, fast)
    text, document = diagnosis_text(found), diagnosis_json(found)
    assert "compiled checker  is used" in text and "7.2.22, compared with Debian's on kvm-nvhe, kvm-vhe" in text
    assert document["compiled"] is True
    assert document["fast_qemu"] == {
        **{"program": "/cache/qemu", "version": "7.2.22", "source": "1:7.2+1"},
        "compared": ["kvm-nvhe", "kvm-vhe"],
    }
    assert "on no target (" in check_fast_qemu(replace(fast, compared=())).detail


def test_a_build_that_is_not_wanted_is_not_missed() -> None:
    assert check_checker(False, pure=True).detail == f"{PURE} is set: Python checks"


def test_the_fast_qemu_is_there_for_targets_that_it_was_compared_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Image", "initrd", "fast", "qemu-system-aarch64"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    prepared = PreparedTarget("t", tmp_path / "Image", "0", "6.1.0", "p", "1", tmp_path / "initrd", tmp_path, tmp_path)
    fast, cache = FastQemu(tmp_path / "fast", "7.2.22", "1:7.2"), Cache(tmp_path / "cache")
    monkeypatch.setattr(doctor, "find_fast_qemu", lambda _: fast)
    monkeypatch.setattr(fast_qemu, "build_fast_qemu", lambda *_: fast)
    monkeypatch.setattr(fast_qemu, "prove", lambda *_: Comparison(3, 9, 1.0, ()))
    set_up(load_config("kvm-nvhe"), prepared, cache=cache)
    names = ("kvm-nvhe", "kvm-vhe", "kvm-nvhe%qemu-10.0")
    states = [TargetState(load_config(name), prepared) for name in names]
    assert find_fast_state(states, cache) == FastState(fast, ("kvm-nvhe",))
    assert find_fast_state([TargetState(load_config("kvm-nvhe"), None)], cache) == FastState(fast, ())


def test_a_machine_that_can_have_none_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Cache) -> None:
        raise SetupError("there are no edits for QEMU 11.0")

    monkeypatch.setattr(doctor, "find_fast_qemu", refuse)
    check = check_fast_qemu(find_fast_state((), Cache(tmp_path)))
    assert check.ok and check.detail == "there are no edits for QEMU 11.0: campaigns run on Debian's"
