# SPDX-License-Identifier: Apache-2.0
"""Copy-on-write clones of a real machine: they run scenarios like a booted one, and do not change the template."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from harness.vm.build.prepare import PreparedTarget, prepare
from harness.vm.cache import Cache
from harness.vm.clone import KIND, Clones
from harness.vm.config import DEFAULT_TARGET, PROJECT, list_configs, load_config
from harness.vm.target import boot
from tests.vm.runaways import UNDEFINED
from tests.vm.running import REGRESSIONS, check_all, findings

SCENARIOS = {name: REGRESSIONS[name] for name in ("mmio_load_signed_byte_x", "reset_then_stale_completion")}
CONFIG = load_config(DEFAULT_TARGET)


@pytest.fixture(scope="module")
def prepared() -> PreparedTarget:
    return prepare(CONFIG)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_clones_run_what_a_booted_machine_runs(prepared: PreparedTarget, tmp_path: Path) -> None:
    said: list[str] = []
    clones = Clones(Cache(tmp_path), said.append)
    with boot(CONFIG, prepared) as cold:
        expected = {name: findings(c) for name, c in check_all(CONFIG.name, SCENARIOS, cold, fresh_vm=True).items()}
    assert all(expected.values())
    with boot(CONFIG, prepared, clones=clones) as one:
        (entry,) = clones.cache.entries(KIND)
        before = digest(entry.path / "ram"), digest(entry.path / "mailbox")
        assert one.exits == 0, "no earlier use"
        first = {name: findings(c) for name, c in check_all(CONFIG.name, SCENARIOS, one, fresh_vm=True).items()}
        start = time.monotonic()
        with boot(CONFIG, prepared, clones=clones) as other:  # two at once, from the same files
            took = time.monotonic() - start
            assert other.exits == 0
            second = {name: findings(c) for name, c in check_all(CONFIG.name, SCENARIOS, other, fresh_vm=True).items()}
    assert first == second == expected
    assert (digest(entry.path / "ram"), digest(entry.path / "mailbox")) == before
    assert len(said) == 1 and "booting a template" in said[0]
    assert took < 5, "a clone does not boot"


def test_a_damaged_template_is_replaced_by_a_boot(prepared: PreparedTarget, tmp_path: Path) -> None:
    said: list[str] = []
    clones = Clones(Cache(tmp_path), said.append)
    with boot(CONFIG, prepared, clones=clones):
        pass
    (entry,) = clones.cache.entries(KIND)
    size = (entry.path / "state").stat().st_size
    (entry.path / "state").write_bytes(bytes(size))
    with boot(CONFIG, prepared, clones=clones) as machine:
        assert findings(check_all(CONFIG.name, SCENARIOS, machine, fresh_vm=True)["mmio_load_signed_byte_x"])
    assert "the clone did not start, so the machine is booted in full" in said[-1]
    assert clones.cache.entries(KIND) == (), "the next one makes a new template"


MAKING = """\
import sys
from pathlib import Path
from harness.vm.build.prepare import prepare
from harness.vm.cache import Cache
from harness.vm.clone import Clones
from harness.vm.config import load_config
from harness.vm.target import boot
config = load_config(sys.argv[1])
prepared = prepare(config)
with boot(config, prepared, clones=Clones(Cache(Path(sys.argv[2])), lambda line: print(line, flush=True))):
    print("ready", flush=True)
"""


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_killed_while_the_template_is_made(seconds: float, prepared: PreparedTarget, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", MAKING, CONFIG.name, str(tmp_path)]
    process = subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and b"booting a template" in process.stdout.readline()
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    clones = Clones(Cache(tmp_path))
    with boot(CONFIG, prepared, clones=clones) as machine:
        assert findings(check_all(CONFIG.name, SCENARIOS, machine, fresh_vm=True)["mmio_load_signed_byte_x"])
    assert len(clones.cache.entries(KIND)) == 1 and not list((tmp_path / "building").iterdir())


@pytest.mark.parametrize("target", list_configs())
def test_a_guest_that_runs_away_is_ended_in_a_clone(target: str) -> None:
    """By ticks of the host's timer, which QEMU saves only if it is one of EL1: with VHE it is not."""
    for _ in range(2):  # the first may have to make the template
        with open_targets(TargetOptions(target, "spec")) as targets:
            assert targets.run_and_check(UNDEFINED).checked.status == "runaway"
