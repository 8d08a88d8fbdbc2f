# SPDX-License-Identifier: Apache-2.0
"""Programs to record: those that cannot run in a target are refused, others are packed unchanged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fuzz.cli.main import main
from harness.errors import InputError
from harness.vm.build.initramfs import read_cpio
from harness.vm.build.programs import NAMES, build_programs, overlay, read_program


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static and a dynamic arm64 program."""
    work = tmp_path_factory.mktemp("programs")
    (work / "main.c").write_text("int main(void) { return 0; }\n")
    for name, flags in (("static", ["-static"]), ("dynamic", []), ("object", ["-c"])):
        subprocess.run(["aarch64-linux-gnu-gcc", *flags, "-o", work / name, work / "main.c"], check=True)
    return work


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dynamic", "compile with -static"),
        ("object", "not an arm64 program (EM_AARCH64, ET_REL)"),
        ("main.c", "not an ELF program"),
        ("none", "cannot be read: No such file"),
        ("/bin/sh", "not an arm64 program (EM_X86_64"),
    ],
)
def test_what_cannot_run_is_refused(built: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError) as raised:
        read_program(built / name, (), {})
    assert reason in str(raised.value)


def test_a_program_and_its_files_are_packed(built: Path) -> None:
    program = read_program(built / "static", ("--flag", "two words"), {"data": built / "main.c"})
    assert program.title == "static --flag two words"
    members = {member.path: member for member in read_cpio(overlay(program, build_programs()))}
    assert members["program/static"].data == (built / "static").read_bytes()
    assert members["program/data"].data == (built / "main.c").read_bytes()
    assert members["program/argv"].data == b"/program/static\0--flag\0two words\0"
    assert members["recorder"].mode & 0o111


def test_the_programs_of_the_project_compile() -> None:
    where = build_programs()
    assert all((where / name).read_bytes().startswith(b"\x7fELF") for name in NAMES)


USAGE = (
    # arguments, the text of the error line
    ([], "expected either --linux or a program"),
    (["--linux", "PROGRAM"], "expected either --linux or a program"),
    (["--file", "a/b=PROGRAM", "PROGRAM"], "without a slash"),
    (["--file", "PROGRAM", "--file", "PROGRAM", "PROGRAM"], "each name once"),
    (["--file", "none", "PROGRAM"], "none: cannot be read"),
    (["--target", "none", "PROGRAM"], "no such target"),
    (["--cpus", "9", "--linux"], "expected a number from 1 to 8"),
    (["--memory", "32", "--linux"], "expected a number from 64 to 256"),
)


@pytest.mark.parametrize(("arguments", "reason"), USAGE, ids=[reason for _, reason in USAGE])
def test_usage(
    built: Path, tmp_path: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [text.replace("PROGRAM", str(built / "static")) for text in arguments]
    assert main(["record", "--out", str(tmp_path / "t"), *given]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1


def test_a_directory_that_is_not_there(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--out", str(tmp_path / "no" / "t"), str(built / "static")]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
