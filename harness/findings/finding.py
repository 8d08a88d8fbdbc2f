# SPDX-License-Identifier: Apache-2.0
"""Represent findings as values, with their ids and their JSON form.  Pure: it stores nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.errors import InputError
from harness.relations.divergence import Divergence

VERSION = 1
KINDS = ("divergence", "crash", "internal", "alarm")
"""The kinds of findings: KVM and model differ; the machine was lost; shadowfuzz itself failed; the target's kernel
logged an alarm."""
MAX_JSON_BYTES = 1 << 20
MAX_DIVERGENCES = 64
"""A finding has at most so many of its divergences; ``divergence_count`` is their number."""
ID = re.compile(r"(?:divergence|crash|internal|alarm)-[0-9a-f]{12}")

Signature = tuple[str, ...]
"""Of a divergence: relation, register, exit class, helper, and its cause if that is determined."""
_PLACE = 4
"""So many parts of a divergence's signature say where it shows."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject of a test: target, its kernel, and the level of the model that it was compared with."""

    target: str
    kernel_release: str
    kernel_sha256: str
    level: str


@dataclass(frozen=True, slots=True)
class Tries:
    """How often something was reproduced: ``hits`` of ``runs``."""

    hits: int
    runs: int

    @property
    def possible(self) -> bool:
        """Whether these are counts at all."""
        return 0 <= self.hits <= self.runs


@dataclass(frozen=True, slots=True)
class Difference:
    """A divergence as a finding stores it: numbers are hexadecimal text, names are unchanged."""

    relation: str
    register: str
    expected: str
    observed: str
    exit_class: str
    event: int
    step: int
    helper: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One cluster, represented by its first member.

    ``detail`` is the message when a machine was lost or shadowfuzz failed; ``first_seen`` is ISO 8601, UTC; ``same_vm``
    and ``fresh_vm`` count reproductions, without the first observation.  ``other`` is the second target where two were
    compared (relation ``against``), None otherwise.
    """

    kind: str
    signature: Signature
    subject: Subject
    divergences: tuple[Difference, ...]
    divergence_count: int
    same_vm: Tries
    fresh_vm: Tries
    first_seen: str
    detail: str = ""
    other: Subject | None = None

    @property
    def id(self) -> str:
        """The name of its cluster."""
        return finding_id(self.kind, self.signature, self.subject, self.other)

    @property
    def where(self) -> str:
        """The target, or the two that differ."""
        return self.subject.target if self.other is None else f"{self.subject.target} against {self.other.target}"

    @property
    def title(self) -> str:
        """A description in one line."""
        if not self.divergences:
            return self.detail or " ".join(self.signature)
        d = self.divergences[0]
        name = f"{d.relation}.{d.register}" if d.register else d.relation
        if self.other is not None:
            call = f" {d.helper}" if d.helper else ""
            sides = f"{d.expected} on {self.subject.target}, {d.observed} on {self.other.target}"
            return f"{name} at {d.exit_class}{call}: {sides}"
        helper = f", model: {d.helper}" if d.helper else ""
        return f"{name} at {d.exit_class}{helper}: expected {d.expected}, observed {d.observed}"


def finding_id(kind: str, signature: Signature, subject: Subject, other: Subject | None = None) -> str:
    """Return ``KIND-`` and 12 hexadecimal digits; findings of different kernels have different ids."""
    pair = [] if other is None else [other.target, other.kernel_sha256]
    key = json.dumps([kind, signature, subject.target, subject.kernel_sha256, subject.level, *pair])
    return f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def place_text(signature: Signature) -> str:
    """Return the place of a divergence: ``relation.register/exit class/helper``, without empty parts."""
    name, rest = ".".join(filter(None, signature[:2])), filter(None, signature[2:_PLACE])
    return "/".join((name, *rest))


def signature_text(signature: Signature) -> str:
    """Return a signature as people write it: :func:`place_text`, and in brackets the cause, if it is determined."""
    cause = cause_of(signature)
    return f"{place_text(signature)} ({cause})" if cause else place_text(signature)


def split_text(text: str) -> tuple[str, str]:
    """Return the two parts of a divergence's :func:`signature_text`: where it shows, and the cause (may be empty)."""
    place, _, cause = text.partition(" (")
    return (place, cause[:-1]) if cause.endswith(")") else (text, "")


def cause_of(signature: Signature) -> str:
    """Return the cause in a divergence's signature (:class:`harness.relations.divergence.Divergence`), or nothing."""
    return signature[_PLACE] if len(signature) > _PLACE else ""


def is_member(found: Signature, wanted: Signature) -> bool:
    """Whether a divergence of signature ``found`` belongs to the cluster ``wanted``.

    A cluster without a cause may be older than the rules that determine causes: it has members of any cause.
    """
    return found == wanted or (not cause_of(wanted) and found[:_PLACE] == wanted)


def difference(divergence: Divergence) -> Difference:
    """Return a divergence as a finding stores it."""
    d = divergence
    expected, observed = (v if isinstance(v, str) else hex(v) for v in (d.expected, d.observed))
    return Difference(d.relation, d.register, expected, observed, d.exit_class, d.event, d.step, d.helper)


def to_json(finding: Finding) -> str:
    """Return the text of ``finding.json``."""
    document = {"version": VERSION, "id": finding.id} | asdict(finding)
    if finding.other is None:
        del document["other"]
    return json.dumps(document, indent=2) + "\n"


class _Wrong(Exception):
    """What is wrong with a document; :func:`from_json` adds where."""


def _take(table: Mapping[str, Any], key: str, kind: type) -> Any:
    value = table.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Wrong(f"{key}: expected {'an object' if kind is dict else 'a list' if kind is list else kind.__name__}")
    if kind is str:
        _text(value, key)
    return value


def _text(value: Any, key: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Wrong(f"{key}: no text, it holds a lone surrogate") from None


def _record(table: object, kind: type[Any]) -> Any:
    """Build a dataclass whose fields are all ``str`` or ``int`` from a JSON object."""
    if not isinstance(table, dict):
        raise _Wrong(f"expected an object for {kind.__name__}")
    types = {"str": str, "int": int}
    return kind(**{f.name: _take(table, f.name, types[str(f.type)]) for f in fields(kind)})


def _finding(table: object) -> Finding:
    if not isinstance(table, dict):
        raise _Wrong("expected an object")
    if _take(table, "version", int) != VERSION:
        raise _Wrong(f"version: expected {VERSION}")
    kind, signature = _take(table, "kind", str), _take(table, "signature", list)
    if kind not in KINDS:
        raise _Wrong(f"kind: expected one of {', '.join(KINDS)}")
    if not signature or not all(isinstance(part, str) for part in signature):
        raise _Wrong("signature: expected a list of texts, at least one")
    for part in signature:
        _text(part, "signature")
    finding = Finding(
        kind,
        tuple(signature),
        _record(table.get("subject"), Subject),
        tuple(_record(item, Difference) for item in _take(table, "divergences", list)),
        _take(table, "divergence_count", int),
        _record(table.get("same_vm"), Tries),
        _record(table.get("fresh_vm"), Tries),
        _take(table, "first_seen", str),
        _take(table, "detail", str),
        _record(table["other"], Subject) if "other" in table else None,
    )
    for name, tries in (("same_vm", finding.same_vm), ("fresh_vm", finding.fresh_vm)):
        if not tries.possible:
            raise _Wrong(f"{name}: {tries.hits} of {tries.runs} runs, which is impossible")
    if finding.divergence_count < 0:
        raise _Wrong("divergence_count: expected 0 or more")
    if table.get("id") != finding.id:
        raise _Wrong(f"id: expected {finding.id}, which is what its signature gives")
    return finding


def from_json(text: str | bytes, where: str) -> Finding:
    """Return the finding that ``finding.json``'s text holds.  InputError: anything else, whatever it is."""
    if len(text) > MAX_JSON_BYTES:
        raise InputError(where, None, f"longer than {MAX_JSON_BYTES} bytes")
    try:
        return _finding(json.loads(text))
    except json.JSONDecodeError as error:
        raise InputError(where, error.lineno, f"not JSON: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        # ValueError: an integer of more digits than Python reads.
        raise InputError(where, None, f"not JSON that a finding uses: {type(error).__name__}") from None
    except _Wrong as wrong:
        raise InputError(where, None, f"no finding: {wrong}") from None
