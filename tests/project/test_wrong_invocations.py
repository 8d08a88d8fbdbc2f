# SPDX-License-Identifier: Apache-2.0
"""Any wrong invocation gives one clear line on stderr within seconds, the right status, never a traceback.

Most of the list runs in this process, in which nothing can be fetched, built or booted.  Cases about the exit of the
process (a reader that closes its pipe, a full disk, Ctrl-C while Python starts) run in separate processes.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from fuzz.cli.main import main
from fuzz.cli.tree import leaves
from harness import input_file, output_file
from harness.errors import SetupError
from harness.exit_status import ExitStatus
from tests.support.commands import launcher
from tests.support.kept import filled
from tests.support.paths import ROOT

Capture = pytest.CaptureFixture[str]
SECONDS = 10
LEAST = 250
"""Minimum number of wrong invocations in the list."""


def table() -> Iterator[tuple[str, str]]:
    """Yield each command line of the list and the text of its error."""
    document = tomllib.loads((ROOT / "tests/project/wrong_invocations.toml").read_text(encoding="utf-8"))
    for row in document["wrong"]:
        yield from ((line, row["says"]) for line in row["lines"])


def unknown_options() -> Iterator[tuple[str, str]]:
    """Yield every command with an option that it does not have."""
    for words, _, _ in leaves():
        yield f"{words} --bogus", "No such option '--bogus'"


WRONG = (*table(), *unknown_options())


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the values of the words in capitals."""
    root = tmp_path_factory.mktemp("wrong")
    for name in ("DIR", "CORPUS", "FIFODIR", "FIFOCAMP", "DIRCAMP"):
        (root / name).mkdir()
    (root / "DIRCAMP" / "findings.db").mkdir()
    for name in ("FIFO", "FIFODIR/a.scn", "FIFOCAMP/findings.db"):
        os.mkfifo(root / name)
    (root / "LOOP").symlink_to(root / "LOOP")
    (root / "TEXT").write_text("hello\n")
    (root / "EMPTYF").touch()
    with (root / "HUGE").open("wb") as huge:
        huge.truncate(1 << 40)
    seed = ROOT / "corpus/seeds/psci_version.scn"
    (root / "CORPUS" / "a.scn").write_bytes(seed.read_bytes())
    filled(root / "CAMP")
    named = {path.name: str(path) for path in root.iterdir()}
    return named | {
        "SEED": str(seed),
        "NONE": str(root / "none"),
        "UNDER": str(root / "TEXT" / "x"),
        "NOTEXT": os.fsdecode(os.fsencode(root / "f") + b"\xff.scn"),
        "SYS": "/sys/kernel/nothing",
        "LONG": "x" * 5000,
        "NUL": "a\0b",
        "sqlite:///@FIFO": f"sqlite:///{root / 'FIFO'}",
        "T": str(root / "t"),
        "X": str(root / "x"),
    }


@pytest.fixture
def no_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make fetching, building and booting fail, and FIFOs time out at once."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise SetupError("this invocation was taken for a right one")

    for name in (
        "fuzz.targets.prepared_side.prepare",
        "harness.vm.build.prepare.prepare",
        "harness.vm.kernels.fetch.load_kernels",
        "harness.vm.kernels.fetch.find_kernel",
        "fuzz.triage.matrix_run.load_kernels",
        "fuzz.triage.bisect_run.load_kernels",
    ):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr(input_file, "FIFO_SECONDS", 0.05)
    monkeypatch.setattr(output_file, "READER_SECONDS", 0.05)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)


@pytest.fixture
def in_time() -> Iterator[None]:
    """Fail an invocation that does not end."""

    def late(*_: object) -> NoReturn:
        raise AssertionError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_the_list_is_long() -> None:
    assert len(set(WRONG)) == len(WRONG) >= LEAST


@pytest.mark.parametrize(("line", "says"), WRONG, ids=lambda value: value[:60] or "nothing")
@pytest.mark.usefixtures("no_machine", "in_time")
def test_one_clear_line(line: str, says: str, words: dict[str, str], capsys: Capture) -> None:
    argv = [words.get(word, word) for word in shlex.split(line)]
    status = main(argv)
    out, err = capsys.readouterr()
    assert (status, out) == (ExitStatus.USAGE, ""), err
    assert err.startswith("shadowfuzz") and err.count("\n") == 1 and err.endswith("\n")
    assert says in err and "Traceback" not in err and len(err) < 1000
    assert all(char.isprintable() for char in err[:-1])


# As processes.


PRINTING = (
    ("--help",),
    ("--version",),
    ("replay", "--help"),
    ("findings", "--help"),
    ("kernels", "config"),
    ("lemma", "--stored", "--pair", "low:body", "--function", "prep_abort"),
    ("corpus", "reach", "--show", "corpus/reach.json"),
    ("corpus", "reach", "--show", "corpus/reach.json", "--json"),
    ("findings", "list", "--campaign", "CAMP"),
    ("findings", "list", "--campaign", "CAMP", "--json"),
    ("findings", "show", "crash-cea6", "--campaign", "CAMP"),
)


def run(path: Path, argv: tuple[str, ...], stdout: int, words: dict[str, str]) -> tuple[int, str]:
    command = [str(path), *(words.get(word, word) for word in argv)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=SECONDS, cwd=ROOT, env=environment
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("argv", PRINTING, ids=" ".join)
def test_a_closed_pipe(argv: tuple[str, ...], words: dict[str, str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert run(launcher(tmp_path), argv, writing, words) == (ExitStatus.BROKEN_PIPE, "")
    finally:
        os.close(writing)


@pytest.mark.parametrize("argv", PRINTING, ids=" ".join)
def test_a_full_disk(argv: tuple[str, ...], words: dict[str, str], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        status, said = run(launcher(tmp_path), argv, full.fileno(), words)
    assert (status, said) == (ExitStatus.FAILED, "shadowfuzz: No space left on device\n")


def test_standard_output_that_is_closed(words: dict[str, str], tmp_path: Path) -> None:
    script = f'"{launcher(tmp_path)}" --help >&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert (done.returncode, done.stderr) == (ExitStatus.BROKEN_PIPE, "")


def started(process: subprocess.Popen[str]) -> bool:
    """Whether the script has blocked SIGINT; before that, Python cannot handle it."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("SigBlk:"):
            return bool(int(line.split()[1], 16) >> signal.SIGINT - 1 & 1)
    return False


@pytest.mark.parametrize("delay", [0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3])
def test_ctrl_c_at_once(delay: float, words: dict[str, str], tmp_path: Path) -> None:
    """Also while Python imports.  The command waits for a FIFO, so that it still runs."""
    # A shell lets its background jobs ignore SIGINT, and what they start, too.
    command = ["env", "--default-signal=INT", str(launcher(tmp_path)), "replay", words["FIFO"]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        begun = time.monotonic()
        while not started(process) and process.poll() is None and time.monotonic() - begun < SECONDS:
            pass
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (ExitStatus.INTERRUPTED, "shadowfuzz: interrupted\n")


def test_a_fifo_that_something_comes_from(tmp_path: Path) -> None:
    """A shell's ``<(command)`` is a FIFO."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    holder = os.open(fifo, os.O_RDWR)
    os.write(holder, b"text")
    with input_file.open_input(fifo) as file:
        assert select.select([file], [], [], 1)[0] and file.read(4) == b"text"
    os.close(holder)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, Path.touch], ids=["directory", "fifo", "file"])
def test_what_is_no_seekable_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x"
    make(path)
    if path.is_file():
        input_file.open_input(path, seekable=True).close()
    else:
        with pytest.raises(OSError, match=r"expected a file|Is a directory"):
            input_file.open_input(path, seekable=True)
