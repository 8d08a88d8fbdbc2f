# SPDX-License-Identifier: Apache-2.0
"""The command line without a VM: every kind of bad input gives one line and status 2."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.cli.main import main
from harness.errors import AgentProtocolError, InputError, SetupError, VmLost
from harness.exit_status import ExitStatus
from harness.scenario.scenario import HEADER
from harness.vm.config import CONFIG_DIR
from tests.support.commands import all_words, help_of
from tests.support.kept import filled
from tests.support.paths import GOLDEN, ROOT

HEAD = f"{HEADER}\nabout A test.\n"
CONFIG = (CONFIG_DIR / "kvm-nvhe.toml").read_text()
Capture = pytest.CaptureFixture[str]


def fail(capsys: Capture, *argv: str, status: int = ExitStatus.USAGE) -> str:
    """Run the command; check the status, one line on stderr and nothing on stdout; return the line."""
    assert main(argv) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert err.isascii()
    return err


BAD_SCENARIOS: tuple[tuple[str, bytes, int | None, str], ...] = (
    ("empty", b"", 1, "ends too early"),
    ("cut before the sentence", HEADER.encode(), 1, "ends too early"),
    ("cut inside the header", HEADER[:9].encode(), 1, "expected `shadowfuzz-scenario 1`"),
    ("cut inside a step", f"{HEAD}ldrsb x3, [x1".encode(), 3, "expected `ldrsb TARGET, [BASE, OFFSET]`"),
    ("unknown step", f"{HEAD}hvc 0\nsmoke 0\n".encode(), 4, "unknown step 'smoke'"),
    ("unknown register", f"{HEAD}set x31 1\n".encode(), 3, "register 'x31'"),
    ("unknown initial register", f"{HEAD}reg pc 1\n".encode(), 3, "register 'pc'"),
    ("number too big", f"{HEAD}set x3 0x10000000000000000\n".encode(), 3, "a number of at most 64 bits"),
    ("immediate out of range", f"{HEAD}hvc 0x10000\n".encode(), 3, "0 to 0xffff"),
    ("offset out of range", f"{HEAD}ldrb w0, [x1, 0x1000]\n".encode(), 3, "offset"),
    ("too many steps", (HEAD + "wfi\n" * 257).encode(), 259, "more than 256 steps"),
    ("not text", b"\x7fELF\xff\xfe", 1, "not UTF-8"),
    ("control characters", f"{HEAD}\x1b[31mhvc 0\n".encode(), 3, "unknown step"),
    ("a line too long", f"{HEAD}hvc {'0' * 500}\n".encode(), 3, "line longer than 400"),
    ("a file too long", b"#" * 70_000, None, "longer than 65536 bytes"),
)


@pytest.mark.parametrize(("data", "line", "reason"), [c[1:] for c in BAD_SCENARIOS], ids=[c[0] for c in BAD_SCENARIOS])
def test_bad_scenario_files(tmp_path: Path, capsys: Capture, data: bytes, line: int | None, reason: str) -> None:
    path = tmp_path / "bad.scn"
    path.write_bytes(data)
    where = str(path) if line is None else f"{path}:{line}"
    said = fail(capsys, "replay", str(path))
    assert said.startswith(f"shadowfuzz: {where}: ")
    assert reason in said


def test_all_files_are_parsed_before_anything_runs(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.scn").write_text(f"{HEAD}wfi\n")
    (tmp_path / "z.scn").write_text(f"{HEAD}wfi 1\n")
    assert "z.scn:3: " in fail(capsys, "replay", str(tmp_path))


CONFIGS: tuple[tuple[str, Callable[[str], str], str], ...] = (
    ("wrong key", lambda text: f"{text}\nkernel = 1\n", "unknown key 'kernel'"),
    ("wrong value", lambda text: text.replace('mode = "nvhe"', 'mode = "el4"'), "mode is 'el4'"),
    ("missing key", lambda text: text.replace("cpu = ", "# cpu = "), "key 'cpu' is missing"),
    ("not TOML", lambda text: f"{text}\n[[[", "not TOML"),
)


@pytest.mark.parametrize(("change", "reason"), [c[1:] for c in CONFIGS], ids=[c[0] for c in CONFIGS])
def test_bad_configs(tmp_path: Path, capsys: Capture, change: Callable[[str], str], reason: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(change(CONFIG))
    said = fail(capsys, "replay", str(GOLDEN / "mixture.scn"), "--target", str(path))
    assert said.startswith(f"shadowfuzz: {path}")
    assert reason in said


def test_an_unknown_cpu_model(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(CONFIG.replace("cortex-a72", "cortex-a99"))
    said = fail(capsys, "replay", str(GOLDEN / "mixture.scn"), "--target", str(path), status=ExitStatus.FAILED)
    assert "CPU model cortex-a99" in said


def kernel_directory(path: Path) -> None:
    path.mkdir()


def kernel_text(path: Path) -> None:
    path.write_text("no kernel\n")


def kernel_compressed(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b" + bytes(100))


def kernel_missing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [kernel_missing, kernel_directory, kernel_text, kernel_compressed])
def test_unusable_kernels(tmp_path: Path, capsys: Capture, make: Callable[[Path], None]) -> None:
    path = tmp_path / "Image"
    make(path)
    assert f"{path}: " in fail(capsys, "replay", str(GOLDEN / "mixture.scn"), "--kernel", str(path))


USAGE_ERRORS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((), "Missing command"),
    (("dance",), "No such command 'dance'"),
    (("replay",), "Missing argument"),
    (("replay", "f.scn", "--level", "spek"), "'spek' is not one of"),
    (("replay", "f.scn", "--repeat", "0"), "expected a number from 1"),
    (("replay", "f.scn", "--repeat", "many\nlines"), "expected a number from 1"),
    (("against", "a", "b", "f.scn", "--repeat", "101"), "'101': expected a number from 1 to 100 "),
    (("bench", "--jobs", "two"), "'two': expected a number from 1 to "),
    (("fuzz", "--seed", "4294967296"), "'4294967296': expected a number from 0 to 4294967295 "),
    (("fuzz", "--seconds", "nan"), "'nan': expected a number of seconds, at least 1"),
    (("triage", "--runs", "9" * 5000), "expected a number from 1 to 10000 "),
    (("replay", "f.scn", "--target", "a", "--all-targets"), "not allowed with"),
    (("replay", "f.scn", "--bogus"), "No such option '--bogus'"),
)


def test_every_help_has_examples_and_statuses() -> None:
    """Each help has a description, an example and the exit statuses; the main help has an example of each command."""
    main_help = help_of("")
    for name in all_words():
        text = help_of(name)
        assert re.search(r"^examples?:$", text, re.MULTILINE), name
        assert f"  shadowfuzz {_as_called(name)}" in text, name
        assert "exit status: " in text, name
        first = name.partition(" ")[0]
        assert f"  shadowfuzz {first}" in main_help, name


def _as_called(words: str) -> str:
    """Return the words without the name of a default command."""
    group, _, command = words.partition(" ")
    default = {"report": "write", "bench": "exits"}.get(group)
    return group if command and command == default else words


@pytest.mark.parametrize(("argv", "reason"), USAGE_ERRORS)
def test_bad_usage(capsys: Capture, argv: tuple[str, ...], reason: str) -> None:
    assert reason in fail(capsys, *argv)


def test_bad_paths(tmp_path: Path, capsys: Capture) -> None:
    empty = tmp_path / "none"
    empty.mkdir()
    assert f"{empty}: a directory without scenarios" in fail(capsys, "replay", str(empty))
    assert "cannot be read: No such file" in fail(capsys, "replay", str(tmp_path / "absent.scn"))
    assert "cannot be read" in fail(capsys, "replay", "a\0b.scn")
    assert "cannot be read" in fail(capsys, "replay", "x" * 5000)
    (tmp_path / "loop.scn").symlink_to(tmp_path / "loop.scn")
    assert "cannot be read" in fail(capsys, "replay", str(tmp_path / "loop.scn"))
    assert "no such target; there are kvm-nvhe" in fail(capsys, "replay", str(GOLDEN), "--target", "kvm-xyz")
    assert "\\x1b" in fail(capsys, "replay", "\x1b[31mred\nline.scn")


def test_two_targets_of_one_name(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "kvm-nvhe.toml"
    path.write_text(CONFIG)
    said = fail(capsys, "replay", str(GOLDEN / "mixture.scn"), "--target", str(path), "--target", "kvm-nvhe")
    assert "two targets have this name" in said


def test_help_and_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("shadowfuzz 0.")
    for argv in (["--help"], ["replay", "--help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert "examples:" in out
        assert "exit status: 0 nothing unexplained, 1 an unexplained divergence" in out


# Errors of every kind, raised from inside a command.

ERRORS: tuple[tuple[BaseException, int, str | None], ...] = (
    (InputError("f.scn", 3, "why"), ExitStatus.USAGE, "shadowfuzz: f.scn:3: why\n"),
    (SetupError("install it"), ExitStatus.FAILED, "shadowfuzz: install it\n"),
    (AgentProtocolError("nonsense"), ExitStatus.FAILED, "shadowfuzz: nonsense\n"),
    (VmLost("t", "died", "one\n\x1b[2Jtwo"), ExitStatus.FAILED, "shadowfuzz: t: died\n    one\n    \\x1b[2Jtwo\n"),
    (KeyboardInterrupt(), ExitStatus.INTERRUPTED, "shadowfuzz: interrupted\n"),
    (
        OSError(28, "No space left on device", "out/x"),
        ExitStatus.FAILED,
        "shadowfuzz: out/x: No space left on device\n",
    ),
    (RuntimeError("oops"), ExitStatus.FAILED, None),
    (BrokenPipeError(32, "Broken pipe"), ExitStatus.BROKEN_PIPE, ""),
)


@pytest.mark.parametrize(("error", "status", "said"), ERRORS, ids=[type(e[0]).__name__ for e in ERRORS])
def test_errors_become_a_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: BaseException, status: int, said: str | None
) -> None:
    def raising(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fuzz.triage.replay.make_plan", raising)
    # The handler redirects a broken stdout; keep that of this process.
    monkeypatch.setattr("fuzz.cli.main._drop_stdout", lambda: None)
    assert main(["replay", str(GOLDEN / "mixture.scn")]) == status
    err = capsys.readouterr().err
    if said is not None:
        assert err == said
        return
    found = re.fullmatch(r"shadowfuzz: internal error, RuntimeError: oops; (\S+) has the traceback, -v shows it\n", err)
    assert found is not None
    assert "in raising" in Path(found[1]).read_text()
    assert main(["replay", str(GOLDEN / "mixture.scn"), "-v"]) == status
    assert "    RuntimeError: oops\n" in capsys.readouterr().err


def command(*argv: str, stdout: int) -> tuple[int, str]:
    program = [sys.executable, "-c", "import sys; from fuzz.cli.main import main; sys.exit(main())", *argv]
    done = subprocess.run(program, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_a_full_disk() -> None:
    with Path("/dev/full").open("wb") as full:
        status, said = command("--help", stdout=full.fileno())
    assert (status, said) == (ExitStatus.FAILED, "shadowfuzz: No space left on device\n")


def test_a_closed_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert command("--help", stdout=writing) == (ExitStatus.BROKEN_PIPE, "")
    finally:
        os.close(writing)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kept") / "campaign"
    filled(root).close()
    return root


@pytest.mark.parametrize(
    ("closed", "status"), [(">&-", 141), (">&- 2>&-", 141), ("2>&-", 1), ("<&-", 1), (">/dev/full", 3)]
)
def test_closed_streams(closed: str, status: int, campaign: Path) -> None:
    program = "import sys; from fuzz.cli.main import main; sys.exit(main())"
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program]
    command += ["findings", "list", "--campaign", str(campaign)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, "status 1 means findings only"
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
