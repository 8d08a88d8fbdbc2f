# SPDX-License-Identifier: Apache-2.0
"""Decide whether a command also compares the hypervisor's own copy of a vCPU: relations ``flush`` and ``sync``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from harness.errors import InputError, SetupError
from harness.vm.build.prepare import PreparedTarget
from harness.vm.config import MachineConfig, Mode
from harness.vm.plugins.hyp_copy import HypCopy
from harness.vm.target import hyp_copy_of


def check_option(wanted: bool | None, configs: Iterable[MachineConfig]) -> None:
    """Check the option before anything is built.  InputError: a target is not in protected mode."""
    plain = next((config.name for config in configs if config.mode is not Mode.PROTECTED), None)
    if wanted and plain is not None:
        raise InputError("--hyp-copy", None, f"{plain} does not run in protected mode: it has no copy of a vCPU")


def choose_copy(
    wanted: bool | None, config: MachineConfig, prepared: PreparedTarget, say: Callable[[str], None]
) -> HypCopy | None:
    """Return the access to the copies, None without them; if ``wanted`` is None, it depends on the target.

    SetupError: the copies are wanted, but not accessible.  If they are only the default, ``say`` gets the reason
    instead.
    """
    if wanted is False or (wanted is None and config.mode is not Mode.PROTECTED):
        return None
    try:
        return hyp_copy_of(config, prepared, say)
    except SetupError as error:
        if wanted:
            raise
        say(f"{config.name}: without the relations flush and sync: {error}")
        return None
