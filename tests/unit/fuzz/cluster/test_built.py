# SPDX-License-Identifier: Apache-2.0
"""Two caches, one empty: it takes what the other has; what is damaged or hostile is one line, and is built here."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from fuzz.cluster.built import Built, Patience
from fuzz.cluster.files import Files
from fuzz.cluster.packed_entry import Packed, PackedFile
from harness.errors import SetupError
from harness.vm.cache import Cache, Entry
from tests.unit.fuzz.cluster.test_packed_entry import contents

NOW = Patience(0, 0, 0.01)


class Machine:
    """A cache of its own, and how often it built something."""

    def __init__(self, root: Path, name: str, secret: str = "ab", patience: Patience = NOW) -> None:
        self.said: list[str] = []
        self.built = Built(Files(f"file://{root}/files"), "run", secret, self.said.append, patience)
        self.cache = Cache(root / name, self.built)
        self.builds = 0

    def build(self, work: Path) -> Mapping[str, object]:
        self.builds += 1
        (work / "Image").write_bytes(b"kernel" * 1000)
        (work / "usr").mkdir()
        (work / "usr" / "tool").write_text("#!/bin/sh\n")
        (work / "usr" / "tool").chmod(0o755)
        (work / "link").symlink_to("usr/tool")
        return {"release": "6.12"}

    def get(self, kind: str = "image") -> Entry:
        return self.cache.get(kind, "0123", self.build)

    def give(self) -> Machine:
        self.get()
        self.built.give()
        return self


def listing(root: Path) -> Path:
    return root / "files/built/run/image-0123.json"


def archive(root: Path) -> Path:
    (found,) = (root / "files/built/archives").iterdir()
    return found


def test_what_one_has_the_other_takes(tmp_path: Path) -> None:
    one, two = Machine(tmp_path, "one").give(), Machine(tmp_path, "two")
    assert two.get().facts == {"release": "6.12"} and two.builds == 0
    assert contents(two.get().path) == contents(one.get().path) != {}
    assert two.said == ["image-0123: taken from another node"] and not two.built.refused
    before = listing(tmp_path).stat().st_mtime_ns, archive(tmp_path).stat().st_mtime_ns
    for machine in (one, two):
        machine.give()
    assert (listing(tmp_path).stat().st_mtime_ns, archive(tmp_path).stat().st_mtime_ns) == before, "given once"


def test_what_was_there_before_is_given_too(tmp_path: Path) -> None:
    Cache(tmp_path / "one").get("image", "0123", Machine(tmp_path, "other").build)
    one = Machine(tmp_path, "one")
    assert one.cache.find("image", "0123") is not None
    one.built.give()
    two = Machine(tmp_path, "two")
    assert two.get() and two.builds == 0


def test_other_kinds_are_built_by_each(tmp_path: Path) -> None:
    one, two = Machine(tmp_path, "one"), Machine(tmp_path, "two")
    for machine in (one, two):
        machine.get("plugin")
        machine.built.give()
        assert machine.builds == 1
    assert not (tmp_path / "files").exists()


def sign(text: str, secret: str = "ab") -> bytes:
    return f"{hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()}\n{text}".encode()


def hostile(name: str, data: bytes = b"evil") -> bytes:
    """Return a listing that is signed, as by a node of the campaign that is not what it was."""
    file = PackedFile(name, len(data), hashlib.sha256(data).hexdigest(), True)
    return sign(Packed("image-0123", (file,), {}, {}).to_json())


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no node of this campaign signed it"),
        (b"\xff\n" * 1000, "no node of this campaign signed it"),
        (sign(Packed("image-0123", ()).to_json(), "other"), "no node of this campaign signed it"),
        (sign("{}"), "no listing of an entry"),
        (sign(Packed("image-4567", ()).to_json()), "is of 'image-4567'"),
        (b"x" * ((16 << 20) + 1), "more than the 16777216 bytes that were expected"),
        (hostile("../evil"), "'../evil' is no name below an entry"),
        (hostile("/tmp/evil"), "'/tmp/evil' is no name below an entry"),
        (hostile("fine"), "No such file or directory"),
    ],
)
def test_a_listing_that_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    put(listing(tmp_path), data)
    machine = Machine(tmp_path, "one")
    assert (machine.get().path / "Image").read_bytes() == b"kernel" * 1000 and machine.builds == 1
    (line,) = machine.said
    assert why in line and line.endswith("; it is built here") and "\n" not in line
    assert list(machine.built.refused.values()) == [line]
    machine.built.give()  # in the place of the one that is damaged
    later = Machine(tmp_path, "later")
    assert later.get() and later.builds == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-20],
        lambda data: data[:40] + b"\xff" * 8 + data[48:],
        lambda data: gzip.compress(b"kernes" + gzip.decompress(data)[6:]),
        lambda data: gzip.compress(gzip.decompress(data) + b"more"),
    ],
)
def test_an_archive_that_is_refused(tmp_path: Path, damage: object) -> None:
    Machine(tmp_path, "one").give()
    path = archive(tmp_path)
    put(path, damage(path.read_bytes()))  # type: ignore[operator]
    machine = Machine(tmp_path, "two")
    entry = machine.get()
    assert machine.builds == 1 and (entry.path / "Image").read_bytes() == b"kernel" * 1000
    assert "the archive is damaged" in machine.said[0] and len(machine.said) == 1
    machine.built.give()
    later = Machine(tmp_path, "later")
    assert later.get() and later.builds == 0


def test_a_directory_in_the_place_of_a_file(tmp_path: Path) -> None:
    listing(tmp_path).mkdir(parents=True)
    machine = Machine(tmp_path, "one")
    assert machine.get() and machine.builds == 1 and "expected a plain file" in machine.said[0]


def test_one_of_several_that_start_at_once_builds(tmp_path: Path) -> None:
    patience = Patience(0.1, 30, 0.05)
    machines = [Machine(tmp_path, f"m{number}", patience=patience) for number in range(4)]
    threads = [threading.Thread(target=machine.give) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(machine.builds for machine in machines) == [0, 0, 0, 1]
    assert len({str(contents(machine.get().path)) for machine in machines}) == 1


def test_nobody_waits_for_one_that_died(tmp_path: Path) -> None:
    put(tmp_path / "files/built/run/image-0123.claim", b"")
    machine = Machine(tmp_path, "one", patience=Patience(0.1, 0.5, 0.05))
    began = time.monotonic()
    assert machine.get() and machine.builds == 1 and 0.4 < time.monotonic() - began < 20


def test_a_build_that_fails_still_says_why(tmp_path: Path) -> None:
    def fails(_work: Path) -> Mapping[str, object]:
        raise SetupError("no compiler")

    put(listing(tmp_path), b"")
    machine = Machine(tmp_path, "one")
    with pytest.raises(SetupError, match="no compiler"):
        machine.cache.get("image", "0123", fails)
    assert machine.cache.find("image", "0123") is None
