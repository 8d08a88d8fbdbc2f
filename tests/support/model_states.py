# SPDX-License-Identifier: Apache-2.0
"""Small states for the model's tests: VM 1, vCPU 0, everything else at its default."""

from __future__ import annotations

from typing import Any

from harness.model import evaluate
from harness.model.state import BLANK_HOST, RData, blank_context

KEY = 8  # ctxt_id(1, 0)
PROOF = ("spec", "low", "body")
ALL = (*PROOF, "kernel")


def state(
    data: tuple[int, ...] = (), core: tuple[int, ...] = (), host: dict[str, int] | None = None, **fields: Any
) -> RData:
    """A state of VM 1, vCPU 0; ``fields`` are the context's, except those that RData itself has."""
    own = {name: fields.pop(name) for name in list(fields) if name in RData.__slots__}
    ctxt = blank_context()
    ctxt.update(fields)
    own.setdefault("cur_vmid", 1)
    own.setdefault("shadow_ctxts", {KEY: ctxt})
    own.setdefault("host_regs", {KEY: {**BLANK_HOST, **(host or {})}})
    return RData(doracle={1: data}, data_log={1: 0}, core_doracle={1: core}, core_data_log={1: 0}, **own)


def run(level: str, function: str, before: RData, *args: int) -> RData:
    """The final state; the test fails if it is undefined."""
    layer = "VCPUOps" if function.endswith("shadow_kvm_regs") else "VCPUOpsAux"
    outcome = evaluate(level, layer, function, before, args)
    assert outcome.state is not None, outcome.undefined
    return outcome.state


def undefined(level: str, function: str, before: RData, *args: int) -> str:
    """Return why it is undefined; the test fails if it is defined."""
    layer = "VCPUOps" if function.endswith("shadow_kvm_regs") else "VCPUOpsAux"
    outcome = evaluate(level, layer, function, before, args)
    assert outcome.undefined is not None
    return outcome.undefined


def changed(before: RData, after: RData, key: int = KEY) -> dict[str, int]:
    """The fields of one context that changed, with their new values."""
    old = before.ctxt(key)
    return {name: value for name, value in after.ctxt(key).items() if value != old[name]}
