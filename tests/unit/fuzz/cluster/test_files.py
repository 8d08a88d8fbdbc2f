# SPDX-License-Identifier: Apache-2.0
"""Files of all nodes, in a directory and in memory: written whole, read with a limit; what is wrong is one line."""

from __future__ import annotations

import os
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fuzz.cluster.files import Files, FilesError, read_files
from harness.errors import InputError, SetupError


@pytest.fixture(params=["directory", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return read_files(str(tmp_path / "with space") if request.param == "directory" else f"memory://{uuid.uuid4().hex}")


def test_files_come_back(files: Files, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 3_000_000)
    assert files.size("a/b") is None
    assert files.put(tmp_path / "one", "a/b") == files.url_of("a/b") == f"{files.url}/a/b"
    files.put_bytes(b"two", "a/c/d")
    assert files.size("a/b") == 3_000_000 and b"".join(files.read("a/b", 3_000_000)) == b"x" * 3_000_000
    files.put_bytes(b"", "a/c/d")
    assert list(files.read("a/c/d", 0)) == []


def test_what_is_not_there_or_too_large(files: Files) -> None:
    files.put_bytes(b"12345", "a/b")
    with pytest.raises(FilesError, match=re.escape(f"cannot read {files.url}/a/b: more than the 4 bytes")):
        list(files.read("a/b", 4))
    for name in ("a/c", "a"):
        with pytest.raises(FilesError, match=re.escape(f"cannot read {files.url}/{name}: ")) as error:
            list(files.read(name, 4))
        assert "\n" not in str(error.value)
    with pytest.raises(FilesError, match=r"cannot write .*: "):
        files.put(Path("/nowhere/file"), "a/d")


def test_nothing_but_plain_files_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "fixed").mkdir()
    (tmp_path / "file").touch()
    files = Files(f"file://{tmp_path}")
    for name in ("fifo", "link", "fixed"):
        with pytest.raises(FilesError, match="expected a plain file"):
            list(files.read(name, 1 << 20))
    with pytest.raises(FilesError, match=r"cannot write .*/file/below"):
        files.put_bytes(b"", "file/below")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a directory"),
        ("a\nb", "expected a directory"),
        ("x" * 1001, "expected a directory"),
        ("/srv/a::b", "expected a directory"),
        ("S3://bucket", "expected one URL"),
        ("s3://", "expected one URL"),
        ("zip://a::s3://b/c", "expected one URL"),
        ("nothing://x", "fsspec knows no nothing://"),
        ("sftp://[x/", "Invalid IPv6 URL"),
        ("sftp://user:word@host/place", "has a password"),
    ],
)
def test_names_that_are_none(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as error:
        read_files(text)
    assert "word@" not in str(error.value) and "\n" not in str(error.value)


def test_a_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(_protocol: str) -> type:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(SetupError, match=r"--files s3://: Install s3fs to access S3"):
        read_files("s3://bucket/place")


def test_a_directory_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_files("here").url == f"file://{tmp_path}/here"


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Another node may read it at any time."""
    files, stop, seen = Files(f"file://{tmp_path}"), threading.Event(), set[int]()

    def look() -> None:
        while not stop.is_set():
            if (size := files.size("a/b")) is not None:
                seen.add(size)

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(30):
        files.put_bytes(b"x" * 1_000_000, "a/b")
    stop.set()
    reader.join()
    assert seen <= {1_000_000} and [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_one_of_many_makes_a_file(tmp_path: Path) -> None:
    files, barrier = Files(f"file://{tmp_path}"), threading.Barrier(8)

    def make(number: int) -> bool:
        barrier.wait()
        return files.create(f"a/{number}")

    with ThreadPoolExecutor(8) as pool:
        for number in range(50):
            assert sum(pool.map(make, [number] * 8)) == 1
