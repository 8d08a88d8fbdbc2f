# SPDX-License-Identifier: Apache-2.0
"""The tables of the README and of docs/architecture.md, made from the tables that the code reads."""

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
    """Every step of a scenario: syntax, who does it, what it does."""
    return table(("step", "side", "what it does"), ((f"`{k.syntax}`", k.side.value, k.summary) for k in STEP_KINDS))


def targets(folder: Path) -> str:
    """Every target of ``folder``: name, CPU, what it is."""
    rows = []
    for path in sorted(folder.glob("*.toml")):
        config = tomllib.loads(path.read_text(encoding="utf-8"))
        rows.append((f"`{path.stem}`", config["cpu"], config["summary"], f"`{config['kernel_package']}`"))
    return table(("target", "CPU", "what", "kernel package"), rows)


def findings(*expected: Path) -> str:
    """The findings of stock kernels, as each ``expected.toml`` of the corpus has them."""
    return "\n".join(
        f"- **{row.summary}** {row.why} Seen on {', '.join(row.targets) or row.elsewhere}."
        f" `{row.id}`, verdict {row.verdict} ({row.source})."
        for row in load_regressions(*expected)
    )


def relations() -> str:
    """Every row of the registry: its divergences, what is compared, by which module."""
    rows: list[tuple[str, str, str]] = []
    for one in ALL:
        shows = ", ".join(f"`{name}`" for name in one.shows.split(", "))
        rows.append((shows, one.what, f"`{one.module.__name__.rpartition('.')[2]}`"))
    return table(("divergence", "what is compared with what", "module"), rows)


def errata(*expected: Path) -> str:
    """Every kept finding: where and how which kernels depart from the contract, or that it has no rule."""
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
        "modules": modules(root),
        "errata": errata(root / "corpus" / "regressions" / "expected.toml"),
        "relations": relations(),
    }


def render(text: str, made: Mapping[str, str]) -> str:
    """Return ``text`` with every generated block as it must be.  KeyError: a block that nobody makes."""
    return _ANY.sub(lambda match: _BLOCK.format(name=match[1], body=made[match[1]]), text)
