# SPDX-License-Identifier: Apache-2.0
"""Doctor's rows: present items are ok, missing ones say how to get them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.targets.doctor import COMPILERS, REQUIREMENTS
from harness.errors import InputError
from harness.vm.build.doctor import (
    Compiler,
    Requirement,
    TargetState,
    check_compiler,
    check_distributions,
    check_requirements,
    check_target,
    parse_requirements,
)
from harness.vm.build.prepare import PreparedTarget
from harness.vm.config import load_config

ROW = Requirement("qemu-system-arm", "qemu-system-aarch64", "runs the target")
PREPARED = PreparedTarget(
    name="kvm-nvhe",
    kernel=Path("/cache/kernel-1/Image"),
    kernel_sha256="aa",
    kernel_release="6.1.0-1-cloud-arm64",
    package="linux-image-6.1.0-1-cloud-arm64",
    package_version="6.1.5-1",
    initrd=Path("/cache/guest-1/initrd.cpio"),
    module_elf=Path("/cache/guest-1/probe.ko"),
    layout=Path("/cache/guest-1/layout.json"),
)


def test_carried_list_of_packages() -> None:
    rows = parse_requirements(REQUIREMENTS.read_text(), "x")
    packages = {row.package for row in rows}
    assert {"qemu-system-arm", "gcc-aarch64-linux-gnu", "make", "python3-venv"} <= packages
    assert {package for compiler in COMPILERS for package in compiler.packages} <= packages


def test_rows() -> None:
    assert parse_requirements("# a | b\n\nqemu-system-arm | qemu-system-aarch64 | runs the target # x\n", "x") == (ROW,)
    for wrong in ("a | b", "a | b | c | d", "a || c"):
        with pytest.raises(InputError, match="x:2: expected: package"):
            parse_requirements(f"\n{wrong}\n", "x")


def test_requirements() -> None:
    (there,) = check_requirements([ROW], lambda evidence: f"/usr/bin/{evidence}")
    assert (there.ok, there.detail, there.fix) == (True, "runs the target (/usr/bin/qemu-system-aarch64)", "")
    (missing,) = check_requirements([ROW], lambda _: None)
    assert not missing.ok
    assert "apt-get install qemu-system-arm" in missing.fix


NO_HEADER = "fatal error: string.h: No such file or directory"


@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: compiler.command)
def test_compilers_of_this_machine(compiler: Compiler) -> None:
    check = check_compiler(compiler)
    assert (check.kind, check.ok, check.fix) == ("compiler", True, ""), check.detail
    assert check.detail.endswith(f"/{compiler.command} {' '.join(compiler.flags)}")


@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: compiler.command)
@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f"echo headers.c:1:10: {NO_HEADER}; echo compilation terminated.; exit 1", f"headers.c:1:10: {NO_HEADER}"),
        ("exit 0", "produced no output"),
    ],
)
def test_compilers_that_do_not_compile(
    compiler: Compiler, script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / compiler.command
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    check = check_compiler(compiler)
    assert not check.ok
    assert str(fake) in check.detail and why in check.detail
    assert check.fix == f"sudo apt-get install --reinstall {' '.join(compiler.packages)}"


def test_a_compiler_without_a_header_of_the_sources(tmp_path: Path) -> None:
    """The check uses the system headers of the sources; the sources' own headers are not system headers."""
    source = tmp_path / "plugin.c"
    source.write_text('#include <string.h>\n#include "own.h"\n#include <sys/nowhere.h>\n')
    host = COMPILERS[0]
    check = check_compiler(Compiler(host.command, "it", host.flags, (source,), host.packages))
    assert not check.ok
    assert "sys/nowhere.h: No such file" in check.detail


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for compiler in COMPILERS:
        check = check_compiler(compiler)
        assert not check.ok
        assert f"{compiler.command} is missing: install the Debian package {compiler.packages[0]}" in check.detail


def test_distributions() -> None:
    requires = ["atheris==3.0.0", "qemu.qmp==0.0.6", "z3-solver>=4.13", "pytest>=8; extra == 'test'"]
    checks = check_distributions(requires, lambda name: None if name == "qemu.qmp" else "1")
    assert [(check.name, check.ok) for check in checks] == [("atheris", True), ("qemu.qmp", False), ("z3-solver", True)]
    assert checks[1].fix == "make setup"


def test_target() -> None:
    config = load_config("kvm-nvhe")
    absent = check_target(TargetState(config, None))
    assert (absent.ok, absent.fix) == (False, "shadowfuzz setup --target kvm-nvhe")
    good = check_target(TargetState(config, PREPARED, "aa"))
    assert good.ok
    for fact in ("6.1.5-1", "/cache/kernel-1/Image", "sha256 aa"):
        assert fact in good.detail
    noisy = check_target(TargetState(config, PREPARED, "aa", ("WARN in kvm_init: WARNING",)))
    assert noisy.ok and noisy.detail == f"{good.detail}; alarms of its kernel at boot: WARN in kvm_init: WARNING"
    assert check_target(TargetState(config, PREPARED, "aa", ())) == good
    damaged = check_target(TargetState(config, PREPARED, "bb"))
    assert not damaged.ok
    assert "rm -r /cache/kernel-1" in damaged.fix
    assert check_target(TargetState(config, replace(PREPARED, kernel_sha256="bb"), "bb")).ok


def test_what_only_other_machines_need() -> None:
    text = "gcc [!arm64] | gcc | compiles\nmake | make | builds\n"
    assert [row.package for row in parse_requirements(text, "x", "x86_64")] == ["gcc", "make"]
    assert [row.package for row in parse_requirements(text, "x", "aarch64")] == ["make"]
    assert "gcc-aarch64-linux-gnu" not in {
        row.package for row in parse_requirements(REQUIREMENTS.read_text(), "x", "aarch64")
    }


@pytest.mark.parametrize(("machine", "ok"), [("x86_64", False), ("aarch64", True)])
def test_a_distribution_that_a_machine_has_no_package_of(machine: str, ok: bool) -> None:
    (check,) = check_distributions(['atheris==3.0.0; platform_machine == "x86_64"'], lambda name: None, machine)
    assert check.ok is ok
    assert ("no campaign can run here" in check.detail) is ok
