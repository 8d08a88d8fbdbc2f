# SPDX-License-Identifier: Apache-2.0
"""Files that all machines of a cluster reach: a directory, or an object store by a URL of fsspec's.

What is read there is untrusted input: its size is limited, and nothing but plain files is opened.  Source: fsspec's
documentation, "API Reference" and "Built-in Implementations".
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.errors import InputError, SetupError

FLAG = "--files"
PIECE = 1 << 20
BUCKETS = ("abfs", "abfss", "az", "gcs", "gs", "s3", "s3a")
"""Object stores: they have no directories, and fsspec would make the bucket of a name that was mistyped."""
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://[!-~]+")


class FilesError(OSError):
    """A file could not be written or read there; the text is one line."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files below a URL, each with a name like ``a/b/c``."""

    url: str

    @property
    def _is_local(self) -> bool:
        return self.url.startswith("file:")

    def put(self, source: Path, name: str) -> str:
        """Write a file, over one that is there; return its URL.  FilesError: it cannot be written."""
        with self._failing("write", name), self._replacing(name) as (files, path):
            files.put_file(str(source), path)
        return self.url_of(name)

    def put_bytes(self, data: bytes, name: str) -> None:
        """Write a file, over one that is there.  FilesError: it cannot be written."""
        with self._failing("write", name), self._replacing(name) as (files, path):
            files.pipe_file(path, data)

    def create(self, name: str) -> bool:
        """Make an empty file; return whether this call made it.  FilesError: it cannot be made."""
        with self._failing("write", name):
            files, path = self._open_for_writing(name)
            try:
                if self._is_local:
                    Path(path).touch(exist_ok=False)  # fsspec looks first and then writes: two could make it
                else:
                    files.pipe_file(path, b"", mode="create")
            except FileExistsError:
                return False
        return True

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None: there is none.  FilesError: it cannot be looked at."""
        with self._failing("look at", name):
            files, path = self._open(name)
            try:
                return _size_of(files.info(path))
            except FileNotFoundError:
                return None

    def read(self, name: str, most: int) -> Iterator[bytes]:
        """Yield a file's bytes in pieces.

        FilesError: it cannot be read, is no plain file, or has more than ``most`` bytes.
        """
        with self._failing("read", name):
            files, path = self._open(name)
            size = _size_of(files.info(path))
            left = most
            if size <= most:
                with files.open(path, "rb") as file:
                    while left >= 0 and (piece := file.read(min(PIECE, left + 1))):
                        left -= len(piece)
                        yield piece
            if size > most or left < 0:
                raise FilesError(f"more than the {most} bytes that were expected")

    def url_of(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.url.rstrip('/')}/{name}"

    def _open(self, name: str) -> tuple[Any, str]:
        """Return the file system and the path of a file in it; a listing that it remembers may be old."""
        from fsspec.core import url_to_fs

        files, path = url_to_fs(self.url_of(name), use_listings_cache=False)
        return files, str(path)

    def _open_for_writing(self, name: str) -> tuple[Any, str]:
        files, path = self._open(name)
        if self.url.partition("://")[0] not in BUCKETS:
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
        return files, path

    @contextmanager
    def _replacing(self, name: str) -> Iterator[tuple[Any, str]]:
        """Yield a file system and a path to write; others see the file whole or not at all, as in an object store."""
        files, path = self._open_for_writing(name)
        if not self._is_local:
            yield files, path
            return
        part = f"{path}.{uuid.uuid4().hex}.part"
        try:
            yield files, part
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise

    @contextmanager
    def _failing(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # implementations raise exceptions of many types
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            line = "".join(c if c.isprintable() else " " for c in reason)[:200]
            raise FilesError(f"cannot {what} {self.url_of(name)}: {line}") from error


def _size_of(info: dict[str, Any]) -> int:
    """Return the size of a plain file.  FilesError: it is something else, and to open it may block."""
    if info.get("type") != "file" or info.get("islink") or not isinstance(info.get("size"), int):
        raise FilesError("expected a plain file")
    return int(info["size"])


def read_files(text: str) -> Files:
    """Read the name of a directory or a URL.

    InputError: it is neither, or has a password, which would be in each finding.  SetupError: fsspec, or its
    implementation for this kind of URL, is not installed.
    """
    if "://" not in text:
        if not text or not text.isprintable() or "::" in text or len(text) > 1000:
            raise InputError(FLAG, None, f"{text[:60]!r}: expected a directory, or a URL like s3://BUCKET/PATH")
        text = f"file://{Path(text).absolute()}"
    elif (url := _URL.fullmatch(text)) is None or "::" in text or len(text) > 1000:
        raise InputError(FLAG, None, f"{text[:60]!r}: expected one URL, like s3://BUCKET/PATH or file:///DIRECTORY")
    else:
        _check(url[1], text)
    return Files(text)


def _check(protocol: str, text: str) -> None:
    try:
        password = urlsplit(text).password
    except ValueError as error:
        raise InputError(FLAG, None, f"{text[:60]!r}: {error}") from error
    if password is not None:
        raise InputError(
            FLAG, None, "has a password: give it to each node as the store's client reads it, not in the URL"
        )
    try:
        import fsspec

        fsspec.get_filesystem_class(protocol)
    except ValueError as error:
        raise InputError(FLAG, None, f"{text[:60]!r}: fsspec knows no {protocol}://") from error
    except ImportError as error:
        raise SetupError(f"{FLAG} {protocol}://: {error or 'fsspec is not installed'} (docs/cluster.md)") from error
