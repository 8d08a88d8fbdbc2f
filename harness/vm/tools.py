# SPDX-License-Identifier: Apache-2.0
"""Run one tool of the set-up: with a fixed environment, progress lines if it takes long, killed with its parent."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import SetupError

Progress = Callable[[str], None]
"""Receives one line of progress."""

PROGRESS_SECONDS = 2.0
"""Seconds after which a running tool is reported; again after twice the time, and so on."""

TIMEOUT_SECONDS = 900.0
"""Timeout in seconds; longer than any tool needs on a slow network.  apt-get never ends if its disk fills up."""

PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
PASSED_ON: frozenset[str] = frozenset(("HOME", "PATH", "TMPDIR", *PROXIES))
"""Environment variables that a tool inherits.  Not MAKEFLAGS (``make`` may run this process), ARCH, CFLAGS or a
language."""


def quiet(_line: str) -> None:
    """Discard progress."""


def require_tool(command: str, package: str) -> str:
    """Return the path of `command`; SetupError names the Debian package that provides it."""
    found = shutil.which(command)
    if found is None:
        raise SetupError(f"{command} is missing: install the Debian package {package}, or run make setup")
    return found


def run_tool(
    argv: Sequence[str],
    what: str,
    *,
    progress: Progress = quiet,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = TIMEOUT_SECONDS,
) -> tuple[int, str]:
    """Run `argv` to its end; return its exit status and its output (both streams, in order).

    `what` begins the progress lines and the error message.  With `check`, a non-zero status raises SetupError with the
    most informative line.  In either case a full disk raises OSError(ENOSPC), and more than `timeout` seconds
    SetupError.
    """
    environment = {name: value for name, value in os.environ.items() if name in PASSED_ON}
    environment |= {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"} | dict(env or {})
    # A killed set-up must not leave running tools that write into a directory which the next one clears.
    command = ["setpriv", "--pdeathsig", "TERM", "--", *argv]
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
                start_new_session=True,  # so that its own children can be ended with it
            )
        except FileNotFoundError as error:
            raise SetupError("setpriv is missing: install the Debian package util-linux") from error
        try:
            _wait(process, what, progress, timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.returncode != 0 and says_disk_full(output):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if check and process.returncode != 0:
        raise SetupError(f"{what} failed: {reason_line(output) or f'exit status {process.returncode}'}")
    return process.returncode, output


def _wait(process: subprocess.Popen[bytes], what: str, progress: Progress, timeout: float) -> None:
    start = time.monotonic()
    report = PROGRESS_SECONDS
    while True:
        try:
            process.wait(max(0.0, min(report, timeout) - (time.monotonic() - start)))
            return
        except subprocess.TimeoutExpired as error:
            if time.monotonic() - start >= timeout:
                raise SetupError(f"{what} did not end within {timeout:.0f} s; run the command again") from error
            progress(f"{what} ({report:.0f} s)")
            report *= 2  # a slow network should not fill the terminal with progress lines


def says_disk_full(output: str) -> bool:
    """Whether a tool's output reports a full disk, in the words of the C library or of apt."""
    return os.strerror(errno.ENOSPC) in output or "enough free space" in output


REASON_PREFIXES: tuple[str, ...] = ("fatal error: ", "error: ", "ERROR: ", "E: ", "Error: ", "Err:", "W: ", "*** ")
"""Prefixes of lines that explain a failure, the most informative first (gcc, modpost, apt, make)."""


def reason_line(output: str) -> str:
    """Return the line of a failed tool's output that has the reason, or its last line; empty if there is no output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for mark in REASON_PREFIXES:
        for line in lines:
            if mark in line:
                return line
    return lines[-1] if lines else ""
