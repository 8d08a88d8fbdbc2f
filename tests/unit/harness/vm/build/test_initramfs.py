# SPDX-License-Identifier: Apache-2.0
"""The initramfs writer: its output is read back, and has the bytes of the format."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.vm.build.initramfs import TRAILER, Member, build_initramfs, file, read_cpio, write_cpio

PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).filter(
    lambda path: path != TRAILER
)
NUMBERS = st.integers(0, 2**32 - 1)
MEMBERS = st.lists(st.builds(Member, PATHS, NUMBERS, st.binary(max_size=50), st.tuples(NUMBERS, NUMBERS)), max_size=6)


@given(MEMBERS)
def test_round_trip(members: list[Member]) -> None:
    archive = write_cpio(members)
    assert read_cpio(archive) == tuple(members)
    assert len(archive) % 4 == 0


def test_bytes_of_one_file() -> None:
    """The expected bytes are written by hand from buffer-format.rst."""
    head = (
        b"070701" b"00000001" b"000081ed" b"00000000" b"00000000" b"00000001" b"00000000" b"00000003"
        b"00000000" b"00000000" b"00000000" b"00000000" b"00000005" b"00000000"
    )  # fmt: skip
    archive = write_cpio([file("init", b"abc", executable=True)])
    # 110 + 5 bytes are padded to 116, three bytes of data to four.
    assert archive.startswith(head + b"init\0\0" + b"abc\0" + b"070701")


def test_initramfs() -> None:
    members = {member.path: member for member in read_cpio(build_initramfs(b"agent", b"module"))}
    assert members["init"].data == b"agent"
    assert members["init"].mode == stat.S_IFREG | 0o755
    assert members["probe.ko"].data == b"module"
    assert stat.S_ISCHR(members["dev/console"].mode)
    assert members["dev/console"].device == (5, 1)
    # The kernel unpacks in order: a directory must precede its files.
    assert list(members).index("dev") < list(members).index("dev/console")
    assert build_initramfs(b"agent", b"module") == build_initramfs(b"agent", b"module")


@given(MEMBERS.filter(bool), st.data())
def test_truncated_is_an_error(members: list[Member], data: st.DataObject) -> None:
    archive = write_cpio(members)
    end = len(archive) - len(TRAILER) - 4  # inside the trailer's name: only padding follows it
    with pytest.raises(ValueError, match=r"no cpio header|beyond the archive"):
        read_cpio(archive[: data.draw(st.integers(0, end))])
