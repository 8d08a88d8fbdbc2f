# SPDX-License-Identifier: Apache-2.0
"""Infer which system-register accesses EL2 rejected in a protected VM, from where the guest resumed.

EL2 handles the system registers of a protected VM without an exit to the host.  A rejected access shows only in the
guest's next state: the guest is at its vector, or the effect of the access is missing.  Where the observed state is not
that of the code, it may be that of the same code with some accesses rejected; the rejection is then the divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from types import MappingProxyType
from typing import TypeVar

from harness.arch import a64, sysregs
from harness.guest.execute import EC_UNKNOWN, Continue, Effect, RaiseException

UNDEFINED, IGNORED = "undefined", "ignored"
"""How EL2 rejects an access: by an exception for an UNDEFINED instruction, or as RAZ/WI."""
NONE: Mapping[int, str] = MappingProxyType({})
Path = TypeVar("Path")
MAX_REFUSALS = 2
"""Accesses that may be rejected in one run: after the first the guest is at its vector, which mostly ends the run."""


def refused_effect(word: int, how: str) -> Effect:
    """Return the effect of an access that EL2 rejects."""
    if how == UNDEFINED:
        return RaiseException(EC_UNKNOWN)
    target = word & 31
    return Continue({target: 0} if a64.mnemonic(word) == "mrs" and target != 31 else {})


def name(word: int, how: str) -> str:
    """Return the name of a rejected access in reports, such as ``undefined.actlr_el1``."""
    return f"{how}.{sysregs.BY_ENCODING[a64.system_register(word)].name}"


def find_refusals(
    words: Iterable[int], again: Callable[[Mapping[int, str]], Path], agrees: Callable[[Path], bool]
) -> tuple[Mapping[int, str], Path] | None:
    """Return the fewest rejections that lead to the observed state, and the path; None: no rejections do.

    ``words`` are the instructions of the guest's code.  ``again`` executes it with some accesses rejected.
    """
    accesses = [word for word in dict.fromkeys(words) if _is_access(word)]
    choices = [(word, how) for word in accesses for how in (UNDEFINED, IGNORED)]
    for count in range(1, MAX_REFUSALS + 1):
        for chosen in combinations(choices, count):
            refused = dict(chosen)
            if len(refused) == count and agrees(path := again(refused)):
                return refused, path
    return None


def _is_access(word: int) -> bool:
    return a64.mnemonic(word) in ("mrs", "msr") and a64.system_register(word) in sysregs.BY_ENCODING
