# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz doctor`` and ``shadowfuzz prepare`` as commands."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from fuzz.cli.main import run
from harness.errors import InputError, SetupError
from harness.vm.config import list_configs
from tests.support.fake_tree import NAMES, fake_tree


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With an empty cache every target is missing, and the check creates no files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(["doctor", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["cache"] == str(tmp_path / "shadowfuzz")
    assert [target["name"] for target in document["targets"]] == list(list_configs())
    assert all(target["image"] is None for target in document["targets"])
    assert run(["doctor"]) == 3
    text = capsys.readouterr().out
    assert "MISSING  kvm-nvhe" in text
    assert "get it: shadowfuzz setup --target kvm-nvhe" in text
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_is_rejected_before_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match="no such target"):
        run(["setup", "--target", "kvm-nvhe", "nonsense"])
    assert list(tmp_path.iterdir()) == []


def test_a_checker_that_cannot_be_compiled_stays_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[object] = []

    def fails(*given: object) -> NoReturn:
        tried.append(given)
        raise SetupError("gcc is missing")

    prepared = SimpleNamespace(package="linux-image", package_version="1")
    monkeypatch.setattr("harness.vm.build.prepare.prepare", lambda *_, **__: prepared)
    monkeypatch.setattr("fuzz.campaign.guidance.choose_guide", lambda *_: None)
    monkeypatch.setattr("fuzz.compiled.build.compile_checker", fails)
    assert run(["setup"]) == 0
    out, err = capsys.readouterr()
    assert "kvm-nvhe: ready" in out and "the checker stays Python: gcc is missing" in err
    assert run(["setup", "--pure"]) == 0
    assert len(tried) == 1 and "Python" not in capsys.readouterr().err


def test_doctor_of_a_build_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = fake_tree(tmp_path / "linux", config=[name for name in NAMES if name not in ("DEVMEM", "KPROBES")])
    assert run(["doctor", "--tree", str(tree)]) == 3
    lines = capsys.readouterr().out.splitlines()
    (own,) = [line for line in lines if line.startswith("ok") and str(tree) in line]
    assert "Linux 6.12.117-fake, built with gcc, like kvm-6.12-nvhe by its version" in own
    for name, why in (("DEVMEM", "to boot: agent and host share memory"), ("KPROBES", "to record: the module finds")):
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"MISSING  CONFIG_{name} ")]
        assert f"CONFIG_{name}=y is needed {why}" in lines[at]
        assert f"--enable {name}" in lines[at + 1]
    (tree / "Module.symvers").unlink()
    assert run(["doctor", "--tree", str(tree)]) == 3
    assert "no Module.symvers or vmlinux.symvers" in capsys.readouterr().out
    with pytest.raises(InputError, match="cannot use it as a kernel build directory"):
        run(["doctor", "--tree", str(tmp_path / "none")])
