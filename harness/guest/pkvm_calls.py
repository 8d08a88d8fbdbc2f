# SPDX-License-Identifier: Apache-2.0
"""Predict the hypercalls of a protected VM that pKVM handles at EL2, without its host.

Source: Documentation/virt/kvm/arm/hypercalls.rst, "Optional; pKVM protected guests only".
"""

from __future__ import annotations

from harness.arch import a64, exits
from harness.arch.exceptions import State
from harness.arch.registers import MASK64
from harness.guest.execute import Continue

FEATURES, MEMINFO, SHARE, UNSHARE = (
    next(f.fid for f in exits.SMCCC_FUNCTIONS if f.name == f"VENDOR_HYP_KVM_{name}")
    for name in ("FEATURES", "HYP_MEMINFO", "MEM_SHARE", "MEM_UNSHARE")
)
"""The calls: list the calls, return the granule of memory protection, share a page with the host, unshare it."""
GRANULE = 4096
"""Page size of the targets' kernels, which is pKVM's granule of memory protection."""
INVALID_PARAMETER = MASK64 - 2
PAGE_FIRST = "a page that is to be shared and is not there yet: pKVM asks the host for it by a data abort of its own"


def is_pkvm_call(state: State) -> bool:
    """Whether the hypercall in ``state`` is one of these."""
    return state[0] & 0xFFFF_FFFF in (FEATURES, MEMINFO, SHARE, UNSHARE)


def answer(state: State) -> Continue:
    """Return the effect of such a call: its result in x0, and x1 to x3 unknown (Arm DEN 0028 2.6)."""
    function, (address, *reserved) = state[0] & 0xFFFF_FFFF, state[1:4]
    rest = dict.fromkeys((1, 2, 3), (MASK64, "x1 to x3 after a call that returns x0 alone (SMCCC)"))
    if function == FEATURES:
        return Continue({}, {**rest, 0: (MASK64, "which calls there are")})
    if function == MEMINFO:
        return Continue({0: INVALID_PARAMETER if address or any(reserved) else GRANULE}, rest)
    if any(reserved) or address % GRANULE:
        return Continue({0: INVALID_PARAMETER}, rest)
    return Continue({0: 0}, {**rest, 0: (INVALID_PARAMETER, "whether the page can be shared, or is")})


def may_request_page(state: State, word: int | None) -> bool:
    """Whether an instruction may reach the host as a data abort, because the page that it shares is not mapped yet."""
    return word is not None and a64.is_hvc(word) and state[0] & 0xFFFF_FFFF == SHARE
