# SPDX-License-Identifier: Apache-2.0
"""What a level of the model predicts of one round: the values that save and restore leave."""

from __future__ import annotations

from typing import NamedTuple

from harness.arch.exceptions import State


class Prediction(NamedTuple):
    """What a level of the model says about a round.

    ``helper`` names what save chose (``none``: it had nothing to do; ``first``: there was no exit;
    ``sysreg``: the deployed code handles it without save; ``panic.restore``:
    it was restore that panicked); ``dirty`` is the flag word that save
    left, without the exceptions that KVM itself chose; ``state`` holds the restored registers, None after a panic;
    ``spsr_0`` the layer's second copy of SPSR_EL1.  ``undefined`` names the precondition that failed: then nothing
    else is said.  ``revealed``: the general-purpose registers that the layer lets the host see, a bit each.
    """

    helper: str
    dirty: int = 0
    state: State | None = None
    spsr_0: int = 0
    undefined: str = ""
    revealed: int = 0
    path: tuple[tuple[str, bool], ...] = ()
