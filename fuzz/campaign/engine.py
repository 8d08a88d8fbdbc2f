# SPDX-License-Identifier: Apache-2.0
"""The fuzzing engine, atheris: whether campaigns can run here at all."""

from __future__ import annotations

import importlib.util
import platform

from harness.errors import SetupError

MACHINES = ("x86_64",)
"""What atheris has packages for (PyPI, 3.0.0), and so those on which pyproject.toml asks for it."""


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
