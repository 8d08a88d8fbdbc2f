# SPDX-License-Identifier: Apache-2.0
"""The configuration of the private apt, and the interpretation of its output."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.vm.build.kernel_entry import resolve_kernel
from harness.vm.debian.apt import (
    Archive,
    Package,
    fetch_failure,
    parse_record,
    passed_options,
    render_apt_conf,
)
from harness.vm.tools import quiet


def test_apt_configuration() -> None:
    dump = """\
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https "";
Acquire::AllowInsecureRepositories "1";
Acquire::Check-Valid-Until "false";
APT::Get::AllowUnauthenticated "1";
DPkg::Post-Invoke:: "rm -rf /";
"""
    passed = passed_options(dump)
    assert passed == ('Acquire::http::Proxy "http://proxy.example:3128";', 'Acquire::Check-Valid-Until "false";')
    conf = render_apt_conf(Path("/c/apt"), "amd64", passed)
    assert 'APT::Architectures { "arm64"; "amd64"; };' in conf
    assert 'APT::Architectures { "arm64"; };' in render_apt_conf(Path("/c"), "arm64", ())
    assert conf.index("proxy.example") < conf.index("Dir::State")  # the private options come last and override
    directories = [line.split('"')[1] for line in conf.splitlines() if line.startswith("Dir::")]
    assert all(name.startswith("/c/apt") or name in ("/dev/null", "") for name in directories)


RECORD = """\
Package: linux-headers-6.1.0-1-cloud-arm64
Source: linux
Version: 6.1.5-1
Architecture: arm64
Depends: linux-headers-6.1.0-1-common (= 6.1.5-1), linux-kbuild-6.1 (>= 6.1.5-1), a | b, gcc-12:any
SHA256: 0123
Description-en: x
 Package: not-a-field

Package: other
Version: 2
"""


def test_record() -> None:
    depends = ("linux-headers-6.1.0-1-common", "linux-kbuild-6.1", "a", "gcc-12")
    assert parse_record(RECORD) == Package("linux-headers-6.1.0-1-cloud-arm64", "6.1.5-1", "arm64", depends, "0123")
    with pytest.raises(SetupError, match="without the field SHA256"):
        parse_record(RECORD.replace("SHA256", "MD5sum"))


class FakeArchive(Archive):
    """An archive with the packages of a small table."""

    def show(self, name: str, architecture: str = "arm64") -> Package:
        versions = {"linux-image-cloud-arm64": "6.1.5-1", "linux-headers-6.1.0-1-cloud-arm64": self.offline_reason}
        depends = {
            "linux-image-cloud-arm64": ("linux-image-6.1.0-1-cloud-arm64",),
            "linux-image-6.1.0-1-cloud-arm64": ("kmod", "linux-base"),
            "linux-headers-6.1.0-1-cloud-arm64": ("linux-headers-6.1.0-1-common", "linux-kbuild-6.1", "gcc-12"),
            "linux-headers-6.1.0-1-common": (),
            "linux-kbuild-6.1": ("libc6",),
        }
        if name not in depends:
            raise SetupError(f"no package {name}")
        return Package(name, versions.get(name) or "6.1.5-1", architecture, depends[name], "")


def test_kernel_is_resolved() -> None:
    archive = FakeArchive(Path("/none"), "amd64", "", quiet)
    wanted = (
        "linux-image-6.1.0-1-cloud-arm64:arm64=6.1.5-1",
        "linux-headers-6.1.0-1-cloud-arm64:arm64=6.1.5-1",
        "linux-headers-6.1.0-1-common:arm64=6.1.5-1",
        "linux-kbuild-6.1:amd64=6.1.5-1",
    )
    for name in ("linux-image-cloud-arm64", "linux-image-6.1.0-1-cloud-arm64"):
        assert tuple(package.wanted for package in resolve_kernel(archive, name)) == wanted
    with pytest.raises(SetupError, match=r"has linux-image-6\.1\.0-1-cloud-arm64 6\.1\.5-1 but its headers 6\.1\.6-1"):
        resolve_kernel(FakeArchive(Path("/none"), "amd64", "6.1.6-1", quiet), "linux-image-cloud-arm64")


def test_failure_of_a_mirror_is_found_in_apts_words() -> None:
    output = """\
Err:1 http://mirror.example/debian bookworm InRelease
  Could not connect to mirror.example:80 (192.0.2.1), connection timed out
W: Failed to fetch http://mirror.example/debian/dists/bookworm/InRelease  Could not connect to mirror.example:80
W: Some index files failed to download. They have been ignored, or old ones used instead.
"""
    reason = (
        "Failed to fetch http://mirror.example/debian/dists/bookworm/InRelease  Could not connect to mirror.example:80"
    )
    assert fetch_failure(output) == reason
    assert fetch_failure("Hit:1 http://mirror.example/debian bookworm InRelease\n") == ""


def test_damaged_download_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"a package"
    package = Package("p", "1:2-3", "arm64", (), hashlib.sha256(data).hexdigest())
    archive = Archive(tmp_path, "amd64", "", quiet)
    # A fake apt-get, because the real one would fetch; the file name is that of apt.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apt-get").write_text(
        "#!/bin/sh\n[ -e p_1%3a2-3_arm64.deb ] || printf 'a package' >p_1%3a2-3_arm64.deb\n"
    )
    (tmp_path / "bin" / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (deb,) = archive.download([package])
    assert deb.read_bytes() == data
    deb.write_bytes(b"a pockage")
    with pytest.raises(SetupError, match="was damaged and is removed: run the command again"):
        archive.download([package])
    assert archive.download([package]) == (deb,)
