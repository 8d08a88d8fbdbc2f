# SPDX-License-Identifier: Apache-2.0
"""Check that the fuzzing engine, atheris, is available on this machine."""

from __future__ import annotations

import importlib.util
import platform

from harness.errors import SetupError

MACHINES = ("x86_64",)
"""Machine types for which atheris 3.0.0 has packages on PyPI; pyproject.toml requires it on these."""


def require_engine() -> None:
    """SetupError: campaigns cannot run on this machine, or atheris is not installed."""
    if importlib.util.find_spec("atheris") is not None:
        return
    machine = platform.machine()
    if machine not in MACHINES:
        raise SetupError(
            f"campaigns need atheris, which has no package for {machine}: run them on {' or '.join(MACHINES)}; "
            "every other command works here"
        )
    raise SetupError("atheris is not installed: make setup")
