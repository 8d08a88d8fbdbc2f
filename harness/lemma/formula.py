# SPDX-License-Identifier: Apache-2.0
"""Evaluate formulas over a start state, the hypotheses of the repaired lemmas, on numbers or on z3 terms.

A formula is a Python expression over the slots of :mod:`~harness.lemma.case`: ``ctxt.dirty``, ``core[0]``,
``image[0].size``, ``info.vm_inc_exe``, ``vmid``.  Its names and functions are written here
a second time (docs/spec/model.md section 2.1), so that a bound that changes in the model no longer agrees.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import z3

from harness.lemma.case import IMAGES, SLOTS
from harness.lemma.symbolic import Truth, choose

Lookup = Callable[[str], Any]
"""Slot name to its value: a number, or a :class:`~harness.lemma.symbolic.Sym`."""

NAMES: Mapping[str, int] = MappingProxyType(
    {
        "INVALID": 0xFFFF_FFFF,
        "INVALID64": 0xFFFF_FFFF_FFFF_FFFF,
        "TRAP": 2,
        "SKIP": 1 << 32,
        "INJECT": 0xE_0000_0000,
        "GPR_BITS": 0x7FFF_FFFF,
        "FSC_FAULT": 2,
    }
)
"""``SKIP`` is ``DIRTY_PC_FLAG``, ``INJECT`` ``PENDING_EXCEPT_INJECT_FLAG``, ``TRAP`` ``ARM_EXCEPTION_TRAP``."""

_BOUNDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "is_int": (0, 1 << 32),
        "is_int64": (0, 1 << 64),
        "is_addr": (0, 1 << 48),
        "is_vm": (1, 16),
        "is_vmid": (0, 17),
        "is_vcpu": (0, 8),
    }
)
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = MappingProxyType(
    {
        ast.Lt: lambda a, b: a < b,
        ast.LtE: lambda a, b: a <= b,
        ast.Gt: lambda a, b: a > b,
        ast.GtE: lambda a, b: a >= b,
        ast.Eq: lambda a, b: a == b,
        ast.NotEq: lambda a, b: a != b,
    }
)
_OPERATE: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = MappingProxyType(
    {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.BitAnd: lambda a, b: a & b,
        ast.BitOr: lambda a, b: a | b,
        ast.RShift: lambda a, b: a >> b,
        ast.LShift: lambda a, b: a << b,
        ast.FloorDiv: lambda a, b: a // b,
    }
)


def both(a: Any, b: Any) -> Any:
    """Return ``a and b``; each may be symbolic."""
    if isinstance(a, Truth) or isinstance(b, Truth):
        return Truth(z3.And(_bool(a), _bool(b)))
    return bool(a) and bool(b)


def either(a: Any, b: Any) -> Any:
    """Return ``a or b``; each may be symbolic."""
    return negated(both(negated(a), negated(b)))


def negated(a: Any) -> Any:
    """Return ``not a``, which may be symbolic."""
    return Truth(z3.Not(a.term)) if isinstance(a, Truth) else not a


def _bool(a: Any) -> Any:
    return a.term if isinstance(a, Truth) else z3.BoolVal(bool(a))


def _pick(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, Truth):
        return choose(condition, a, b)
    return a if condition else b


@dataclass(frozen=True, slots=True)
class Formula:
    """A condition over a start state.

    Raises ``ValueError`` if the text is no expression of the language, or names an unknown slot.
    """

    text: str
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse, and try every name once."""
        try:
            object.__setattr__(self, "_tree", ast.parse(self.text, mode="eval").body)
        except SyntaxError as error:
            raise ValueError(f"{self.text!r} is no formula: {error.msg}") from error
        self.holds({name: slot.default for name, slot in SLOTS.items()}.__getitem__)

    def holds(self, lookup: Lookup) -> Any:
        """Return whether the state that ``lookup`` describes satisfies it: a bool, or a symbolic condition."""
        return _Reader(lookup).value(self._tree)

    def of_case(self, case: Mapping[str, int]) -> bool:
        """Return whether a case satisfies it."""
        return bool(self.holds(lambda name: case.get(name, SLOTS[name].default)))


class _Reader:
    """One evaluation."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def value(self, node: ast.expr) -> Any:
        """Return the value of a node.  Raises ``ValueError`` if the node is not of the language."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.BoolOp):
            values = [self.value(v) for v in node.values]
            fold, result = (both if isinstance(node.op, ast.And) else either), values[0]
            for v in values[1:]:
                result = fold(result, v)
            return result
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return negated(self.value(node.operand))
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATE:
            return _OPERATE[type(node.op)](self.value(node.left), self.value(node.right))
        if isinstance(node, ast.IfExp):
            return _pick(self.value(node.test), self.value(node.body), self.value(node.orelse))
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1:
            return self._call(node.func.id, self.value(node.args[0]))
        return self._name(node)

    def _compare(self, node: ast.Compare) -> Any:
        result: Any = True
        left = self.value(node.left)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In) and isinstance(right_node, ast.Tuple):
                this: Any = False
                for choice in right_node.elts:
                    this = either(this, left == self.value(choice))
            else:
                right = self.value(right_node)
                this = _COMPARE[type(op)](left, right)
                left = right
            result = both(result, this)
        return result

    def _name(self, node: ast.expr) -> Any:
        text = ast.unparse(node)
        if text in NAMES:
            return NAMES[text]
        slot = text.replace("image[", "image").replace("].", ".").replace("[", ".").replace("]", "")
        if slot not in SLOTS:
            raise ValueError(f"no such name in a formula: {text}")
        return self._lookup(slot)

    def _call(self, name: str, x: Any) -> Any:
        if name in _BOUNDS:
            low, end = _BOUNDS[name]
            return both(x >= low, x < end)
        if name == "registers":  # how many of x0..x30 are marked
            count: Any = 0
            for i in range(31):
                count = count + ((x >> i) & 1)
            return count
        if name == "vector":  # the exception vector for a PSTATE
            mode = x & 0x1F
            return self._lookup("vbar") + _pick(mode == 4, 0, _pick(mode == 5, 0x200, _pick(mode == 0, 0x400, 0x600)))
        if name == "load_info":  # where the last boot image that holds the address has it, 0: none
            found: Any = 0
            for i in range(min(self._lookup("info.vm_next_load_info"), IMAGES)):
                base, size, remap = (self._lookup(f"image{i}.{n}") for n in ("addr", "size", "remap"))
                found = _pick(both(x >= base, x < base + size), x - base + remap, found)
            return found
        raise ValueError(f"no such function in a formula: {name}")
