# SPDX-License-Identifier: Apache-2.0
"""Memory dumps of crashed machines."""

from __future__ import annotations

from pathlib import Path

from fuzz.store.dumps import DUMPS, Dumps
from harness.errors import Dump


def test_the_newest_dumps_of_a_cluster_are_kept(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path / DUMPS, kept=2, max_bytes=50)
    (tmp_path / DUMPS).mkdir()
    (tmp_path / DUMPS / "new-4194999.kdump").write_bytes(b"left by a worker that was killed")  # above Linux' PID_MAX
    gone = []
    for i in range(4):
        place = dumps.new_path()
        place.write_bytes(bytes([i]) * 10)
        dump, removed = dumps.keep(Dump(str(place), 0, 10, 0.0), "crash-a")
        gone.append(removed)
        assert (tmp_path / dump.path).read_bytes() == bytes([i]) * 10
    assert gone == [0, 0, 1, 1]
    assert not list((tmp_path / DUMPS).glob("new-*"))
    assert [p.name for p in sorted((tmp_path / DUMPS / "crash-a").iterdir())] == ["0003.kdump", "0004.kdump"]
    place = dumps.new_path()
    place.write_bytes(bytes(40))
    _, removed = dumps.keep(Dump(str(place), 0, 40, 0.0), "crash-b")
    assert removed == 1, "the total size is limited"
