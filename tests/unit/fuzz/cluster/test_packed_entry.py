# SPDX-License-Identifier: Apache-2.0
"""An entry of the cache comes back as it was; a listing or an archive that is damaged or hostile is one error."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.cluster.packed_entry import Packed, PackedFile, describe, pack, unpack
from harness.errors import InputError
from harness.vm.cache import Cache, Entry

SHA = hashlib.sha256(b"one").hexdigest()
ROW: dict[str, Any] = json.loads(Packed("kind-key", (PackedFile("a", 3, SHA, False),)).to_json())


def build(work: Path) -> dict[str, object]:
    """Fill an entry: a file, a program and a link two directories down, as the headers of a kernel have."""
    (work / "Image").write_bytes(b"kernel" * 1_000_000)
    deep = work / "usr" / "src" / "tools"
    deep.mkdir(parents=True)
    (deep / "fixdep").write_text("#!/bin/sh\n")
    (deep / "fixdep").chmod(0o755)
    (deep / "empty").touch()
    (work / "usr" / "scripts").symlink_to("src/tools")
    (deep / "back").symlink_to("../../../Image")
    return {"release": "6.12", "packages": ["one", "two"]}


def packed(tmp_path: Path) -> tuple[Entry, Packed, bytes]:
    entry = Cache(tmp_path / "cache").get("kind", "key", build)
    listing = describe(entry)
    pack(entry.path, listing, tmp_path / "archive")
    return entry, listing, (tmp_path / "archive").read_bytes()


def contents(root: Path) -> dict[str, object]:
    """Return what is below a directory, but the manifest."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(root))] = path.readlink()
        elif path.is_file() and path.name != "manifest.json":
            found[str(path.relative_to(root))] = (path.read_bytes(), path.stat().st_mode & 0o111)
    return found


def test_an_entry_comes_back_as_it_was(tmp_path: Path) -> None:
    entry, listing, archive = packed(tmp_path)
    assert Packed.from_json(listing.to_json(), "here") == listing and listing.facts == entry.facts
    assert len(archive) < 100_000
    (tmp_path / "work").mkdir()
    unpack(listing, io.BytesIO(archive), tmp_path / "work")
    assert contents(tmp_path / "work") == contents(entry.path) != {}
    pack(entry.path, listing, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == archive, "two nodes write the same"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "version is 2, expected 1"),
        ({"files": [["/etc/passwd", 3, SHA, False]]}, "'/etc/passwd' is no name below an entry"),
        ({"files": [["../a", 3, SHA, False]]}, "'../a' is no name"),
        ({"files": [["a/../../b", 3, SHA, False]]}, "is no name"),
        ({"files": [["", 3, SHA, False]]}, "is no name"),
        ({"files": [["a\0", 3, SHA, False]]}, "is no name"),
        ({"files": [["a" * 1001, 3, SHA, False]]}, "is no name"),
        ({"files": [["manifest.json", 3, SHA, False]]}, "is no name"),
        ({"files": [["a", 3, SHA, False]] * 2}, "a name is there twice"),
        ({"links": {"a": "b"}}, "a name is there twice"),
        ({"files": [["a", -1, SHA, False]]}, "size or SHA-256 of 'a' is none"),
        ({"files": [["a", 1 << 31, SHA, False]]}, "size or SHA-256 of 'a' is none"),
        ({"files": [["a", 1 << 30, SHA, False], ["b", 1, SHA, False]]}, "more than 100000 files or 1073741824 bytes"),
        ({"files": [["a", 3, "12", False]]}, "size or SHA-256 of 'a' is none"),
        ({"files": [["a", True, SHA, False]]}, "expected name, size, SHA-256"),
        ({"files": ["a"]}, "expected name, size, SHA-256"),
        ({"links": {"b": "/etc"}}, "'b' is no link below an entry"),
        ({"links": {"b": 1}}, "'b' is no link below an entry"),
        ({"links": {"b": ".."}}, "'b' is a link to something outside the entry"),
        ({"links": {"x/b": "../../c"}}, "'x/b' is a link to something outside the entry"),
        ({"links": {"../b": "c"}}, "'../b' is no name"),
        ({"facts": []}, "facts is [], expected dict"),
        ({"more": 1}, "more is unknown"),
    ],
)
def test_listings_that_are_none(change: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=re.escape(why)) as error:
        Packed.from_json(json.dumps({**ROW, **change}), "here")
    assert str(error.value).startswith("here: ") and "\n" not in str(error.value)


@given(st.text(max_size=50) | st.sampled_from(["[" * 100_000, "{}", "null"]))
def test_no_listing(text: str) -> None:
    with pytest.raises(InputError, match="no listing of an entry"):
        Packed.from_json(text, "here")


def refused(tmp_path: Path, listing: Packed, archive: bytes) -> str:
    (tmp_path / "work").mkdir()
    with pytest.raises(InputError) as error:
        unpack(listing, io.BytesIO(archive), tmp_path / "work")
    return str(error.value)


def one(*names: str, links: dict[str, str] | None = None) -> tuple[Packed, bytes]:
    files = tuple(PackedFile(name, 3, SHA, False) for name in names)
    return Packed("kind-key", files, links or {}), gzip.compress(b"one" * len(names))


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_an_archive_that_was_cut_off(tmp_path: Path, cut: int) -> None:
    _, listing, archive = packed(tmp_path)
    assert "the archive is damaged" in refused(tmp_path, listing, archive[:cut])


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (b"one", "Not a gzipped file"),
        (gzip.compress(b"two"), "'a' is not what its SHA-256 says"),
        (gzip.compress(b"on"), "it ends too early"),
        (gzip.compress(b"one" + b"\0" * 100_000_000), "more than the listing has"),
    ],
)
def test_an_archive_of_something_else(tmp_path: Path, archive: bytes, why: str) -> None:
    assert why in refused(tmp_path, one("a")[0], archive)
    assert sum(path.stat().st_size for path in (tmp_path / "work").iterdir()) <= 3, "no more than was announced"


@pytest.mark.parametrize(
    ("listing", "why"),
    [
        (one("a", "a/b"), "'a/b' is below a file"),
        (one("a", links={"a/b": "c"}), "is a link, and something else"),
        # Each link alone stays inside; one after the other they do not.
        (one("f", links={"a": ".", "b": "a/../x"}), "is a link to something outside"),
        (one("f", links={"d/e": "..", "g": "d/e/../../h"}), "is a link to something outside"),
        (one("f", links={"a": "b", "b": "a"}), "is a link to something outside"),
    ],
)
def test_names_that_are_inside_and_lead_out(tmp_path: Path, listing: tuple[Packed, bytes], why: str) -> None:
    assert why in refused(tmp_path, *listing)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_what_cannot_be_packed_is_not_described(tmp_path: Path) -> None:
    def outside(work: Path) -> dict[str, object]:
        (work / "link").symlink_to("/usr/src")
        return {}

    with pytest.raises(InputError, match="no link below an entry"):
        describe(Cache(tmp_path).get("kind", "key", outside))
