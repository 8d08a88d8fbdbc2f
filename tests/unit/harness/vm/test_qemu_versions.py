# SPDX-License-Identifier: Apache-2.0
"""Several QEMU versions: selection by name, present ones, and one that does not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.vm import qemu_versions
from harness.vm.cache import Cache
from harness.vm.debian.apt_sources import Source
from harness.vm.qemu_versions import KIND, QEMU, RECIPE, Emulator, backports, begins, read_version, upstream

SCRIPT = "#!/bin/sh\necho QEMU emulator version {version} '(Debian 1:{version}+ds-1)'\n"


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("1:7.2+dfsg-7+deb12u18+b3", "7.2"),
        ("1:10.0.2+ds-2+deb13u1~bpo12+1", "10.0.2"),
        ("9.2.0-1", "9.2.0"),
    ],
)
def test_the_version_in_a_package_version(package: str, version: str) -> None:
    assert upstream(package) == version


def test_a_version_or_its_whole_beginning() -> None:
    assert begins("10.0.2", "10.0.2") and begins("10.0.2", "10.0") and begins("10.0.2", "10")
    assert not begins("10.0.2", "1") and not begins("10.0.2", "10.0.2.1") and not begins("7.2.22", "7.22")


def install(root: Path, version: str, recipe: str = RECIPE) -> None:
    def build(work: Path) -> dict[str, object]:
        program = work / QEMU
        program.write_text(SCRIPT.format(version=version))
        program.chmod(0o755)
        return {"recipe": recipe, "version": read_version((str(program),)), "package": f"1:{version}+ds-1"}

    Cache(root).get(KIND, f"{version}-{recipe}", build)


def test_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Emulator("7.2.22", (QEMU,))
    monkeypatch.setattr(qemu_versions, "installed", lambda: own)
    cache = Cache(tmp_path)
    assert qemu_versions.present(cache) == (own,) and qemu_versions.find(cache, "10.0") is None
    for version in ("10.0.2", "10.0.10", "7.2.1"):
        install(tmp_path, version)
    install(tmp_path, "11.0.0", recipe="of another version of this project")
    found = qemu_versions.present(cache)
    assert [each.version for each in found] == ["7.2.22", "10.0.10"], "the newest of a series, the installed one first"
    assert qemu_versions.find(cache, "7.2") == own
    newest = qemu_versions.find(cache, "10")
    assert newest is not None and newest.name == "qemu-10.0" and newest.package == "1:10.0.10+ds-1"
    assert qemu_versions.obtain(cache, "10.0") == newest, "nothing to fetch"
    Path(newest.command[0]).unlink()
    assert qemu_versions.find(cache, "10.0.10") is None, "a damaged entry is ignored"


def test_a_qemu_that_does_not_run(tmp_path: Path) -> None:
    program = tmp_path / QEMU
    program.write_text("#!/bin/sh\necho error while loading shared libraries: libnuma.so.9 >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(SetupError, match="does not run here: error while loading shared libraries: libnuma"):
        read_version((str(program),))


def test_backports_are_on_the_same_mirror_with_the_same_key() -> None:
    key = (("Signed-By", "/usr/share/keyrings/debian-archive-keyring.gpg"),)
    main = Source("http://mirror.example/debian", "bookworm", ("main",), key)
    security = Source("http://mirror.example/debian-security", "bookworm-security", ("main",), key)
    assert backports((main, security), "bookworm") == (
        Source("http://mirror.example/debian", "bookworm-backports", ("main",), key),
    )
