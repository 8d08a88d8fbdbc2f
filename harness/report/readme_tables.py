# SPDX-License-Identifier: Apache-2.0
"""Generate the tables of the README and of the pages in docs from the tables that the code reads."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.findings.regressions import any_rule_of, load_regressions
from harness.relations.registry import ALL
from harness.scenario.steps import STEP_KINDS

_BLOCK = "<!-- {name}: generated, tests/project/test_docs.py -->\n{body}\n<!-- end -->"
_ANY = re.compile(
    r"<!-- (\w+): generated, tests/project/test_docs\.py -->\n(?:(?!<!-- end -->).)*<!-- end -->", re.DOTALL
)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def steps() -> str:
    """Every step of a scenario: syntax, guest or host, its effect, its operands, its source."""
    rows = [(f"`{k.syntax}`", k.side.value, k.summary, k.source) for k in STEP_KINDS]
    users: dict[tuple[str, str], list[str]] = {}
    for kind in STEP_KINDS:
        for operand in kind.operands:
            users.setdefault((operand.name, operand.what), []).append(f"`{kind.keyword}`")
    legend = [(f"`{name.upper()}`", what, ", ".join(users[name, what])) for name, what in sorted(users)]
    return "\n\n".join(
        (
            table(("step", "side", "what it does", "source"), rows),
            "Values of the operands:",
            table(("operand", "values", "steps"), legend),
        )
    )


def targets(folder: Path) -> str:
    """Every target of ``folder``: name, CPU, description, kernel package."""
    rows = []
    for path in sorted(folder.glob("*.toml")):
        config = tomllib.loads(path.read_text(encoding="utf-8"))
        rows.append((f"`{path.stem}`", config["cpu"], config["summary"], f"`{config['kernel_package']}`"))
    return table(("target", "CPU", "what", "kernel package"), rows)


def findings(*expected: Path) -> str:
    """The findings of stock kernels, one section for each, from each ``expected.toml`` of the corpus."""
    sections = []
    for path in expected:
        for row in load_regressions(path):
            scenarios = ", ".join(f"[{name}](../corpus/{path.parent.name}/{name}.scn)" for name in row.scenarios)
            sections.append(
                f"### {row.id}\n\n**{row.summary}** {row.why}\n\n"
                f"- Targets: {', '.join(row.targets) or row.elsewhere}.\n"
                f"- Verdict: {row.verdict}.\n"
                f"- Source: {row.source}.\n"
                f"- Scenarios: {scenarios}."
            )
    return "\n\n".join(sections)


FIRST_FINDINGS = (
    "esr-el1-sign-extended",
    "mmio-load-loses-sign",
    "reset-completes-pending-mmio",
    "enable-loses-pending-interrupts",
    "vms-without-gic-share-cpu-interface",
)
"""The findings that the README shows: short ones, of different kinds."""


def first_findings(expected: Path) -> str:
    """The summaries of :data:`FIRST_FINDINGS`, each with a link to its section.  KeyError: one of them is not kept."""
    rows = {row.id: row for row in load_regressions(expected)}
    return "\n".join(
        f"- {rows[name].summary} [`{name}`](docs/findings.md#{name}), {', '.join(rows[name].targets)}."
        for name in FIRST_FINDINGS
    )


def relations() -> str:
    """Every row of the registry: its divergences, the comparison, its module."""
    rows: list[tuple[str, str, str]] = []
    for one in ALL:
        shows = ", ".join(f"`{name}`" for name in one.shows.split(", "))
        rows.append((shows, one.what, f"`{one.module.__name__.rpartition('.')[2]}`"))
    return table(("divergence", "what is compared with what", "module"), rows)


def relations_in_short() -> str:
    """The same without the modules."""
    rows = ((", ".join(f"`{name}`" for name in one.shows.split(", ")), one.what) for one in ALL)
    return table(("divergence", "what is compared with what"), rows)


def errata(*expected: Path) -> str:
    """Every kept finding: the place and effect of its rule and its kernels, or that it has no rule."""
    rows = []
    for row in load_regressions(*expected):
        rule = any_rule_of(row.id)
        kernels = "; ".join(f"{mode} {', '.join(spans)}" for mode, spans in row.releases.items())
        rows.append(
            (f"`{row.id}`", rule.point if rule else "", rule.does if rule else "no rule yet", kernels or "not measured")
        )
    return table(("kept finding", "where", "what the kernel does", "kernels"), rows)


def modules(root: Path) -> str:
    """Every module: the first sentence of its docstring."""
    rows = []
    for top in ("harness", "fuzz"):
        for path in sorted((root / top).rglob("*.py")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if text:
                sentence = re.split(r"(?<=[.])\s|\n\n", text, maxsplit=1)[0]
                rows.append((f"`{path.relative_to(root)}`", " ".join(sentence.split())))
    return table(("module", "what lives there"), rows)


def blocks(root: Path) -> Mapping[str, str]:
    """All generated blocks of the README and the pages in docs of the checkout at ``root``, by name."""
    return {
        "steps": steps(),
        "targets": targets(root / "qemu_configs"),
        "findings": findings(*(root / "corpus" / name / "expected.toml" for name in ("regressions", "crashes"))),
        "first_findings": first_findings(root / "corpus" / "regressions" / "expected.toml"),
        "modules": modules(root),
        "errata": errata(root / "corpus" / "regressions" / "expected.toml"),
        "relations": relations(),
        "relations_in_short": relations_in_short(),
    }


def render(text: str, made: Mapping[str, str]) -> str:
    """Return ``text`` with every generated block updated.  KeyError: a block of an unknown name."""
    return _ANY.sub(lambda match: _BLOCK.format(name=match[1], body=made[match[1]]), text)
