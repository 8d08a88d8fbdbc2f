# SPDX-License-Identifier: Apache-2.0
"""Templates: sparse copies, and names of files."""

from __future__ import annotations

import os
from pathlib import Path

from harness.vm.template import MAILBOX, RAM, STATE, Template, copy_with_holes

MIB = 1 << 20


def test_a_copy_has_the_same_bytes_and_holes_where_there_is_nothing(tmp_path: Path) -> None:
    source = os.memfd_create("source")
    os.ftruncate(source, 64 * MIB)
    for at, data in ((0, b"first"), (5 * MIB - 2, b"over a border"), (20 * MIB, bytes(MIB)), (64 * MIB - 4, b"last")):
        os.pwrite(source, data, at)
    with (tmp_path / "copy").open("w+b") as file:
        written = copy_with_holes(source, file.fileno())
        file.seek(0)
        assert file.read() == os.pread(source, 64 * MIB, 0)
        assert written <= 4 * MIB and os.fstat(file.fileno()).st_blocks * 512 <= 4 * MIB, "zeros take no space"
    os.close(source)


def test_a_template_names_its_files(tmp_path: Path) -> None:
    template = Template(tmp_path)
    assert {template.ram.name, template.mailbox.name, template.state.name} == {RAM, MAILBOX, STATE}
