# SPDX-License-Identifier: Apache-2.0
"""A live campaign on a disk that fills up: it reports that, loses no finding, and continues when there is space."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from harness.vm.build.prepare import prepare
from harness.vm.config import load_config
from tests.vm.killing import COMMAND

NAMESPACE = ("unshare", "--map-root-user", "--mount")
# Full soon after the corpus was written; later there is space.
SMALL_KIB, LARGE_KIB = 1900, 60_000


def _may_mount(place: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    argv = [*NAMESPACE, "mount", "-t", "tmpfs", "none", str(place)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.mark.timeout(180)
def test_a_campaign_on_a_disk_that_fills_up(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _may_mount(disk):
        pytest.skip("no mount name spaces for this user")
    prepare(load_config("kvm-nvhe"))
    fuzz = [*COMMAND[:-2], "--jobs", "1", "--out", str(disk / "c"), "--json", "--seconds"]
    script = tmp_path / "script"
    kept = tmp_path / "kept"
    script.write_text(
        f"mount -t tmpfs -o size={SMALL_KIB}k none {disk}\n"
        f'shift; "$@" 6 > {tmp_path}/first; echo $? > {tmp_path}/status\n'
        f"cp -r {disk}/c {kept}; mount -o remount,size={LARGE_KIB}k {disk}\n"
        f'"$@" 2 > {tmp_path}/second; cp -r {disk}/c {tmp_path}/after\n'
    )
    subprocess.run([*NAMESPACE, "sh", str(script), "-", *fuzz], check=True, stderr=subprocess.DEVNULL, timeout=150)
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("first", "second"))
    assert first["findings_unwritten"] or first["failure"], "it was full"
    assert (tmp_path / "status").read_text() in ("1\n", "3\n")
    assert not second["findings_unwritten"] and not second["failure"] and second["scenarios"] > 0
    places = (kept, tmp_path / "after")
    before, after = (Store(Database(default_url(place)), FINDINGS) for place in places)
    assert set(before.ids()) <= set(after.ids()) and after.ids()
    assert all(before.count(id_) <= after.count(id_) for id_ in before.ids())
