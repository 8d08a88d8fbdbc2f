# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz kernels`` with an archive of two kernels: the list in both forms, and a failed download."""

from __future__ import annotations

import json

import pytest

from fuzz.cli.main import main
from fuzz.targets import kernels as archive_kernels
from harness.errors import SetupError
from harness.vm.cache import Cache
from harness.vm.debian.kernel_archive import Kernel, Kernels
from harness.vm.kernels.needed_config import missing_symbols

OLD = Kernel("6.1.1-1", "6.1.0-1", ("bookworm",), (), (), size=3 << 20, listed=False)
NEW = Kernel("7.3.1-1", "7.3.1+deb14", ("sid", "forky"), (), (), size=5 << 20)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def archive(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Kernels((OLD, NEW), {"experimental": "no network"})
    monkeypatch.setattr("harness.vm.kernels.fetch.load_kernels", lambda *_, **__: known)
    monkeypatch.setattr("harness.vm.kernels.fetch.find_kernel", lambda _, version, __: known.find(version))
    monkeypatch.setattr(archive_kernels, "find_fetched", lambda _, kernel: kernel if kernel is OLD else None)


def test_the_list(capsys: Capture) -> None:
    assert main(["kernels", "list"]) == 0
    _, old, new, total, missing = capsys.readouterr().out.splitlines()
    assert old.startswith("6.1.1-1 ") and "gone from the archive" in old and old.endswith("(here)")
    assert "sid, forky" in new and "(here)" not in new and new.endswith(", ".join(archive_kernels.supports(NEW)))
    assert total == "1 kernels in the archive, 0 with headers; 1 gone; 5 MiB to fetch, 1 here"
    assert missing == "suite experimental could not be read: no network"


def test_the_list_as_json(capsys: Capture) -> None:
    assert main(["kernels", "list", "--offline", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["missing_suites"] == {"experimental": "no network"}
    rows = {row["version"]: (row["listed"], row["fetched"], row["recording"]) for row in document["kernels"]}
    assert rows == {"6.1.1-1": (False, True, "borrowed"), "7.3.1-1": (True, False, "borrowed")}


def test_a_kernel_that_could_not_be_fetched(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    fetched: list[str] = []

    def fetch(_: Cache, kernel: Kernel, __: object) -> None:
        fetched.append(kernel.version)
        if kernel is OLD:
            raise SetupError("it has left the archive")

    monkeypatch.setattr(archive_kernels, "fetch", fetch)
    assert main(["kernels", "fetch", "6.1", "7.3", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document == {"version": 1, "fetched": ["7.3.1-1"], "failed": {"6.1.1-1": "it has left the archive"}}
    assert main(["kernels", "fetch", "--all"]) == 0 and capsys.readouterr().out == "1 kernels are in the cache\n"
    assert fetched == ["6.1.1-1", "7.3.1-1", "7.3.1-1"], "--all fetches the kernels of the archive"
    assert main(["kernels", "fetch", "8"]) == 2


def test_the_configuration_that_a_kernel_needs(capsys: Capture) -> None:
    assert main(["kernels", "config"]) == 0
    out = capsys.readouterr().out
    assert missing_symbols(out) == ()
    lines = out.splitlines()
    assert all(lines[i - 1].startswith("# ") for i, line in enumerate(lines) if not line.startswith("#")), "with why"
