# SPDX-License-Identifier: Apache-2.0
"""Model SeKVM's VCPUOps and VCPUOpsAux at four levels over one state (docs/spec/model.md).

``spec``, ``low``, ``body`` and ``kernel`` are the levels; a level is never repaired to agree with another one, or with
KVM.  ``evaluate`` is pure: it copies the state, runs one function of one level on the copy, and returns an ``Outcome``.
``replay`` applies a level to a recorded round, ``memoised_replay`` does it faster, ``prediction`` is the result.
Imports ``trace`` and rooms before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.model import body, kernel, low, spec
from harness.model.state import Decision, RData, Undefined

LEVEL_NAMES: tuple[str, ...] = ("spec", "low", "body", "kernel")
VM_ARGS: tuple[str, ...] = ("vmid", "vcpuid")


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a layer: the names of its arguments."""

    layer: str
    name: str
    args: tuple[str, ...]


FUNCTIONS: tuple[Function, ...] = (
    *(
        Function("VCPUOpsAux", name, VM_ARGS)
        for name in ("prep_wfx", "prep_hvc", "prep_abort", "sync_dirty_to_shadow", "reset_gp_regs", "reset_sys_regs")
    ),
    Function("VCPUOpsAux", "update_exception_gp_regs", VM_ARGS),
    Function("VCPUOpsAux", "post_handle_shadow_s2pt_fault", (*VM_ARGS, "addr")),
    Function("VCPUOps", "save_shadow_kvm_regs", ()),
    Function("VCPUOps", "restore_shadow_kvm_regs", ()),
)
FUNCTION: Mapping[str, Function] = MappingProxyType({f.name: f for f in FUNCTIONS})
LAYERS: tuple[str, ...] = tuple(dict.fromkeys(f.layer for f in FUNCTIONS))

_MODULES = {"spec": spec, "low": low, "body": body, "kernel": kernel}
CODE: Mapping[tuple[str, str], Callable[..., None]] = MappingProxyType(
    {(level, f.name): getattr(_MODULES[level], f.name) for level in LEVEL_NAMES for f in FUNCTIONS}
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one level: the final state, or why it is undefined; and the decisions that it took."""

    state: RData | None
    undefined: str | None
    path: tuple[Decision, ...]


def evaluate(level: str, layer: str, function: str, state: RData, args: tuple[int, ...] = ()) -> Outcome:
    """Run ``function`` of ``layer`` at ``level`` on a copy of ``state``.

    KeyError: the level, or the function in that layer, does not exist.
    """
    if FUNCTION[function].layer != layer:
        raise KeyError((layer, function))
    d = state.copy()
    try:
        CODE[level, function](d, *args)
    except Undefined as undefined:
        return Outcome(None, undefined.reason, tuple(d.path))
    return Outcome(d, None, tuple(d.path))
