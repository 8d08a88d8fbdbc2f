# SPDX-License-Identifier: Apache-2.0
"""The nightly workflow and the triage page use commands and targets that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fuzz.cli.main import parsed
from harness.vm.config import list_configs
from tests.support.paths import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "nightly.yml"
TRIAGE = ROOT / "docs" / "triage.md"


def test_commands_parse() -> None:
    nightly = re.findall(r"\.venv/bin/shadowfuzz ([^>|\n]*)", WORKFLOW.read_text())
    triage = re.findall(r"^ +\$ shadowfuzz (.*)", TRIAGE.read_text(), re.MULTILINE)
    triage += re.findall(r"`shadowfuzz ([^`]*)`", TRIAGE.read_text())
    assert len(nightly) >= 4 and len(triage) >= 6
    for command in (*nightly, *triage):
        parsed(shlex.split(command))


def test_make_targets_and_variables_exist() -> None:
    (line,) = re.findall(r"run: (make .*)", WORKFLOW.read_text())
    done = subprocess.run(
        ["sh", "-c", line.replace("make ", "make -n ", 1)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TARGET": "kvm-vhe", "SECONDS_TO_FUZZ": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--seconds 77" in done.stdout and "--target kvm-vhe" in done.stdout and "--jobs 4" in done.stdout
    variables = set(re.findall(r"(\w+)=", line))
    assert variables == set(re.findall(r"^(\w+) = ", (ROOT / "Makefile").read_text(), re.MULTILINE)) & variables


@pytest.mark.parametrize(
    ("words", "options"),
    [("campaign", "--pure"), ("campaign FAST=1", "--fast-qemu"), ("setup", ""), ("setup FAST=1", "--fast-qemu")],
)
def test_make_builds_what_takes_minutes_only_where_it_saves_time_later(words: str, options: str) -> None:
    done = subprocess.run(["make", "-n", *words.split()], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if "tools/setup.sh" in line]
    assert set(line.split()) & {"--pure", "--fast-qemu"} == set(options.split())


def test_make_docs_leaves_the_launcher(tmp_path: Path) -> None:
    """It installs the packages of the extra ``docs``, not the project, whose entry point pip would write."""
    bin_ = tmp_path / ".venv" / "bin"
    bin_.mkdir(parents=True)
    launcher, log = bin_ / "shadowfuzz", tmp_path / "log"
    launcher.write_text("launcher")
    for name, script in {
        "python": f'if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi; echo "$@" >>{log}; cat "${{8#-r}}" >>{log}',
        "mkdocs": "exit 0",
    }.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin_ / name).chmod(0o755)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "setup.sh").write_text("#!/bin/sh\n")
    (tmp_path / "tools" / "setup.sh").chmod(0o755)
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    subprocess.run(["make", "docs"], cwd=tmp_path, capture_output=True, check=True)
    pip, *packages = log.read_text().splitlines()
    assert pip.startswith("-m pip install ") and pip.endswith(" -r .venv/docs.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert packages == project["optional-dependencies"]["docs"]
    assert launcher.read_text() == "launcher"


def test_every_target_is_fuzzed() -> None:
    (matrix,) = re.findall(r"target: \[(.*)\]", WORKFLOW.read_text())
    assert sorted(matrix.split(", ")) == sorted(list_configs())


def test_ten_steps() -> None:
    steps = [int(number) for number in re.findall(r"^(\d+)\. \*\*", TRIAGE.read_text(), re.MULTILINE)]
    assert steps == list(range(1, 11))


def test_it_is_yaml() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    workflow = yaml.safe_load(WORKFLOW.read_text())
    steps = workflow["jobs"]["campaign"]["steps"]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    used = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in used), "pinned to a commit"
    (saved,) = (step for step in steps if step.get("uses", "").startswith("actions/cache/save@"))
    assert saved["if"] == "always()" and saved["with"]["path"] == "out/campaign", "also after a night with new findings"
