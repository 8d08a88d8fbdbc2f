# SPDX-License-Identifier: Apache-2.0
"""The cache: entries are complete or absent, built once, repaired after a kill; a full disk gives one sentence."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SetupError
from harness.vm.cache import Build, Cache, default_root, hash_inputs


def write(text: str) -> Build:
    def build(work: Path) -> Mapping[str, object]:
        (work / "file").write_text(text)
        return {"length": len(text)}

    return build


def never(_work: Path) -> Mapping[str, object]:
    raise AssertionError("built again")


def leftovers(cache: Cache) -> list[Path]:
    return list((cache.root / "building").iterdir())


def test_built_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.find("kind", "key") is None
    assert not cache.root.exists()  # a lookup creates nothing
    entry = cache.get("kind", "key", write("one"))
    assert (entry.path / "file").read_text() == "one"
    assert entry.facts == {"length": 3}
    assert cache.get("kind", "key", never) == entry == cache.find("kind", "key")
    assert leftovers(cache) == []


def test_what_was_not_used_for_the_longest_time_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def get(key: str, release: str) -> Path:
        def build(work: Path) -> Mapping[str, object]:
            (work / "file").write_text(key)
            return {"release": release}

        return cache.get("kind", key, build, keep=3, alike="release").path

    for second, (key, release) in enumerate([("1", "a"), ("2", "a"), ("3", "b"), ("4", "a")]):
        os.utime(get(key, release) / "manifest.json", (second, second))
    other = cache.get("another", "1", write("one"), keep=3)
    get("1", "a")  # used again: "2" is now the least recently used of its release
    held = (tmp_path / "kind-2" / "file").open()
    get("5", "a")
    assert [path.name for path in sorted(tmp_path.glob("kind-*"))] == ["kind-1", "kind-3", "kind-4", "kind-5"]
    with held:
        assert held.read() == "2", "an open file stays readable"
    assert other.path.exists() and leftovers(cache) == []
    assert cache.find("kind", "2") is None and get("2", "a").exists(), "it can be built again"


def test_an_entry_may_be_removed_twice(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    entry = cache.get("kind", "key", write("one"))
    cache.remove(entry.path)
    cache.remove(entry.path)
    assert cache.find("kind", "key") is None and leftovers(cache) == []


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(work: Path) -> Mapping[str, object]:
        (work / "file").write_text("half")
        raise SetupError("the compiler is ill")

    cache = Cache(tmp_path)
    with pytest.raises(SetupError, match="the compiler is ill"):
        cache.get("kind", "key", fail)
    assert cache.find("kind", "key") is None
    assert leftovers(cache) == []
    assert (cache.get("kind", "key", write("well")).path / "file").read_text() == "well"


@pytest.mark.parametrize("damage", ["remove", "truncate", "manifest", "nonsense"])
def test_damaged_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    path = cache.get("kind", "key", write("good")).path
    match damage:
        case "remove":
            (path / "file").unlink()
        case "truncate":
            (path / "file").write_text("go")
        case "manifest":
            (path / "manifest.json").unlink()
        case "nonsense":
            (path / "manifest.json").write_text('{"files": [], "facts": {}}')
    assert cache.find("kind", "key") is None
    assert (cache.get("kind", "key", write("good")).path / "file").read_text() == "good"
    assert leftovers(cache) == []


CHILD = """
import sys, time
from pathlib import Path
from harness.vm.cache import Cache

def build(work):
    (work / "file").write_text("half")
    with open(sys.argv[2], "a") as log:
        log.write("building\\n")
    time.sleep(float(sys.argv[3]))
    (work / "file").write_text("whole")
    return {}

print((Cache(Path(sys.argv[1])).get("kind", "key", build).path / "file").read_text())
"""


def start(cache: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, str(cache), str(log), str(seconds)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def wait_for(log: Path) -> None:
    deadline = time.monotonic() + 30
    while not log.exists() or not log.read_text():
        assert time.monotonic() < deadline, "the child did not begin to build"
        time.sleep(0.01)


def test_killed_build_is_repaired(tmp_path: Path) -> None:
    cache, log = Cache(tmp_path / "cache"), tmp_path / "log"
    child = start(cache.root, log, 600)
    wait_for(log)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert [path.joinpath("file").read_text() for path in leftovers(cache)] == ["half"]
    assert cache.find("kind", "key") is None
    # The build of another entry removes it, because its lock is free; that of the same entry would as well.
    cache.get("other", "key", write("x"))
    assert leftovers(cache) == []
    assert (cache.get("kind", "key", write("whole")).path / "file").read_text() == "whole"


def test_running_build_is_left_alone(tmp_path: Path) -> None:
    cache, log = Cache(tmp_path / "cache"), tmp_path / "log"
    child = start(cache.root, log, 3)
    wait_for(log)
    cache.get("other", "key", write("x"))
    assert len(leftovers(cache)) == 1
    output, _ = child.communicate(timeout=60)
    assert output == "whole\n"


def test_two_at_once_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    children = [start(tmp_path / "cache", log, 0.5) for _ in range(3)]
    assert [child.communicate(timeout=60)[0] for child in children] == ["whole\n"] * 3
    assert log.read_text() == "building\n"


def test_waiting_is_reported(tmp_path: Path) -> None:
    cache, log = Cache(tmp_path / "cache"), tmp_path / "log"
    child = start(cache.root, log, 1)
    wait_for(log)
    lines: list[str] = []
    assert cache.get("kind", "key", never, lines.append).path.name == "kind-key"
    assert lines == ["waiting for another process that is building kind-key"]
    assert child.wait(60) == 0


def test_lock_is_not_inherited(tmp_path: Path) -> None:
    """A child that outlives a killed set-up must not block the next one."""
    with Cache(tmp_path).lock("name"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        with (tmp_path / "locks" / "name").open() as lock:
            assert free_within(lock, 10)  # not at once: exec wakes the parent before it closes descriptors
    finally:
        child.kill()
        child.wait()


def free_within(lock: IO[str], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "no space left for .*: free space, or set XDG_CACHE_HOME"),
        (errno.EDQUOT, "no space left for"),
        (errno.EROFS, "cannot write to .*: Read-only file system; make it writable, or set XDG_CACHE_HOME"),
        (errno.EACCES, "cannot write to .*: Permission denied"),
        (errno.EIO, "cannot use the cache .*: Input/output error"),
    ],
)
def test_refusal_of_the_file_system_is_one_sentence(tmp_path: Path, number: int, sentence: str) -> None:
    def refuse(_work: Path) -> Mapping[str, object]:
        raise OSError(number, os.strerror(number))

    cache = Cache(tmp_path / "cache")
    with pytest.raises(SetupError, match=sentence) as caught:
        cache.get("kind", "key", refuse)
    assert "\n" not in str(caught.value)
    assert leftovers(cache) == []


def test_really_full(tmp_path: Path) -> None:
    def fill(work: Path) -> Mapping[str, object]:
        (work / "file").write_bytes(bytes(4 << 20))
        return {}

    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(argv, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small file system; the simulated test above covers the sentence")
    try:
        with pytest.raises(SetupError, match="no space left"):
            Cache(tmp_path / "cache").get("kind", "key", fill)
        assert leftovers(Cache(tmp_path / "cache")) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_too_little_room_is_known_before_the_build(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no space left for .*: free space \(1152921504606846975 MiB\)"):
        Cache(tmp_path).get("kind", "key", never, room=2**80 - 1)
    assert Cache(tmp_path).find("kind", "key") is None


def test_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(SetupError, match="cannot use the cache"):
        Cache(tmp_path / "cache").get("kind", "key", write("x"))


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    assert default_root({"XDG_CACHE_HOME": "/var/x"}) == Path("/var/x/shadowfuzz")
    assert default_root({"XDG_CACHE_HOME": ""}) == Path("/home/user/.cache/shadowfuzz")
    assert default_root({"XDG_CACHE_HOME": "relative"}) == Path("/home/user/.cache/shadowfuzz")
    assert default_root({}) == Path("/home/user/.cache/shadowfuzz")


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_different_inputs_have_different_keys(left: list[str], right: list[str]) -> None:
    assert (hash_inputs(left) == hash_inputs(right)) == (left == right)
