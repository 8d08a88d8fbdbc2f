# SPDX-License-Identifier: Apache-2.0
"""Without a fuzzing engine a campaign fails at once, with the reason."""

from __future__ import annotations

import importlib.util
import platform
import tomllib
from pathlib import Path

import pytest

from fuzz.campaign import lemma_campaign, live_campaign
from fuzz.campaign.engine import MACHINES, require_engine
from fuzz.campaign.live_campaign import LivePlan
from fuzz.targets.options import TargetOptions
from harness.errors import SetupError
from harness.vm.config import PROJECT


@pytest.mark.parametrize(("machine", "why"), [("aarch64", "no package for aarch64"), ("x86_64", "make setup")])
def test_no_engine(machine: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_engine()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    plan = LivePlan(TargetOptions("kvm-nvhe", "spec"), 1.0, tmp_path / "out")
    with pytest.raises(SetupError, match=why):
        live_campaign.run_live_campaign(plan, None, lambda line: None)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match=why):
        lemma_campaign.run_campaign((), 1.0, 1, 0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_it_is_required_where_packages_exist() -> None:
    asked = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    (row,) = (each for each in asked if each.startswith("atheris"))
    assert row.partition("; ")[2] == " or ".join(f"platform_machine == '{name}'" for name in MACHINES)
