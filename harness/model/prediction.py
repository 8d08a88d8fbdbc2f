# SPDX-License-Identifier: Apache-2.0
"""Define the prediction of a level of the model for one round: the values after save and restore."""

from __future__ import annotations

from typing import NamedTuple

from harness.arch.exceptions import State


class Prediction(NamedTuple):
    """A level's prediction for a round.

    ``helper`` is the helper that save called (``none``: no helper; ``first``: there was no exit; ``sysreg``: the
    deployed code handles the exit without save; ``panic.restore``: restore panicked); ``dirty`` is the flag word after
    save, without exceptions that KVM itself injected; ``state`` has the restored registers, None after a panic;
    ``spsr_0`` is the layer's second copy of SPSR_EL1.  ``undefined`` names the violated precondition: the other fields
    are meaningless then.  ``revealed``: the general-purpose registers that the layer reveals to the host, one bit for
    each.
    """

    helper: str
    dirty: int = 0
    state: State | None = None
    spsr_0: int = 0
    undefined: str = ""
    revealed: int = 0
    path: tuple[tuple[str, bool], ...] = ()
