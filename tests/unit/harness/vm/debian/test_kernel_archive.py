# SPDX-License-Identifier: Apache-2.0
"""Kernels of a small fake archive: selection by name, and kernels that have left the archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.vm.config import load_config
from harness.vm.debian.apt import Package
from harness.vm.debian.apt_sources import Source
from harness.vm.debian.kernel_archive import Kernel, Kernels, assemble, recall, remember, suite_sources


def package(name: str, version: str, architecture: str = "arm64", depends: tuple[str, ...] = ()) -> Package:
    return Package(name, version, architecture, depends, "0" * 64)


FAKE_ARCHIVE = {
    package("linux-image-6.1.0-47-cloud-arm64", "6.1.170-3"): (20, {"bookworm", "bookworm-security"}),
    package("linux-headers-6.1.0-47-cloud-arm64", "6.1.170-3", depends=("linux-headers-6.1.0-47-common",
            "linux-kbuild-6.1")): (1, {"bookworm"}),
    package("linux-headers-6.1.0-47-common", "6.1.170-3", "all"): (10, {"bookworm"}),
    package("linux-kbuild-6.1", "6.1.192-2", "amd64", ("libc6", "libelf1")): (2, {"bookworm-security"}),
    package("linux-image-6.1.0-44-cloud-arm64", "6.1.164-1"): (20, {"bookworm-security"}),
    package("linux-image-cloud-arm64", "6.1.170-3"): (1, {"bookworm"}),
    package("linux-image-6.12-cloud-arm64", "6.12.117-1~deb12u1"): (1, {"bookworm-security"}),
    package("linux-image-7.3.4+deb13-cloud-arm64", "7.3.4-1~bpo13+1"): (1, {"trixie-backports"}),
    package("linux-binary-7.3.4+deb13-cloud-arm64", "7.3.4-1~bpo13+1"): (9, {"trixie-backports"}),
    package("linux-base-7.3.4+deb13-cloud-arm64", "7.3.4-1~bpo13+1"): (1, {"trixie-backports"}),
    package("linux-headers-7.3.4+deb13-cloud-arm64", "7.3.4-1~bpo13+1", depends=("linux-headers-7.3.4+deb13-common",
            "linux-kbuild-7.3.4+deb13")): (1, {"trixie-backports"}),
    package("linux-headers-7.3.4+deb13-common", "7.3.4-1~bpo13+1", "all"): (10, {"trixie-backports"}),
    package("linux-kbuild-7.3.4+deb13", "7.3.4-1~bpo13+1", "amd64", ("libc6", "libelf1t64")): (
        2, {"trixie-backports"}),
    package("libc6", "2.36-9", "amd64"): (3, {"bookworm"}),
    package("libc6", "2.41-12", "amd64"): (3, {"trixie"}),
    package("libelf1t64", "0.192-4", "amd64"): (3, {"trixie", "sid"}),
}  # fmt: skip


@pytest.fixture
def kernels() -> Kernels:
    return Kernels(tuple(assemble(FAKE_ARCHIVE, "amd64")))


def test_a_kernel_is_its_image_and_all_that_a_module_needs(kernels: Kernels) -> None:
    old, bookworm, newest = kernels.kernels  # in order, without meta packages
    assert (old.version, old.headers, old.size) == ("6.1.164-1", (), 20)
    assert [p.name for p in bookworm.headers] == [
        *("linux-headers-6.1.0-47-cloud-arm64", "linux-headers-6.1.0-47-common", "linux-kbuild-6.1"),
    ]
    assert bookworm.uname == "6.1.0-47-cloud-arm64"
    assert [p.name.partition("-7")[0] for p in newest.image] == ["linux-binary", "linux-base"]
    # The libraries are those of the release that the tools were built in.
    assert [(p.name, p.version) for p in newest.libraries] == [("libc6", "2.41-12"), ("libelf1t64", "0.192-4")]


def many(*versions: str) -> Kernels:
    return Kernels(tuple(Kernel(v, v.partition("-")[0], ("sid",), (), ()) for v in versions))


def test_a_version_or_its_beginning_names_one_kernel() -> None:
    kernels = many(
        *("6.1.192-1", "6.1.192-2", "6.12.117-1~deb12u1", "6.12.117-1", "7.2.6-1", "7.2.12-1", "7.3.4-1~bpo13+1")
    )
    assert kernels.find("7.2.*").version == "7.2.12-1"
    assert kernels.find("6.1.*").version == "6.1.192-2"
    assert kernels.find("6.12.117").version == "6.12.117-1~deb12u1"
    assert kernels.find("6.12.117-1").version == "6.12.117-1"
    assert kernels.find("7.3").version == "7.3.4-1~bpo13+1"
    for wanted, says in (
        ("6.1", "2 kernels match: 6.1.192-1, 6.1.192-2"),
        ("7.2.1", "no such kernel; there are 7 of 6.1, 6.12, 7.2, 7.3"),
        ("9", "no such kernel"),
    ):
        with pytest.raises(InputError, match=says):
            kernels.find(wanted)


def test_what_has_left_the_archive_is_remembered(tmp_path: Path, kernels: Kernels) -> None:
    assert recall(tmp_path) is None
    assert remember(tmp_path, kernels) == kernels == recall(tmp_path)
    later = remember(tmp_path, Kernels(kernels.kernels[1:], {"sid": "no key"}))
    assert [(k.version, k.listed) for k in later.kernels] == [
        *(("6.1.164-1", False), ("6.1.170-3", True), ("7.3.4-1~bpo13+1", True)),
    ]
    assert recall(tmp_path) == later
    (tmp_path / "kernels.json").write_text("{")
    assert recall(tmp_path) is None


def test_other_suites_are_on_the_same_mirror_with_the_same_key() -> None:
    key = (("Signed-By", "/usr/share/keyrings/debian-archive-keyring.gpg"),)
    configured = (Source("http://mirror.example/debian", "bookworm", ("main",), key),)
    found = suite_sources(configured, "bookworm")
    assert {source.options for source in found} == {key}
    assert {source.uri for source in found} == {"http://mirror.example/debian", "http://mirror.example/debian-security"}
    suites = [source.suite for source in found]
    assert len(set(suites)) == len(suites)
    assert set(suites) >= {"bookworm-backports", "trixie", "trixie-backports", "trixie-security", "sid"}
    assert "sid-security" not in suites


def test_a_target_is_a_configuration_and_a_kernel() -> None:
    config = load_config("kvm-vhe@6.12.117+deb13")
    assert (config.name, config.cpu) == ("kvm-vhe@6.12.117+deb13", "cortex-a76")
    assert config.kernel_version == "6.12.117+deb13"
    assert load_config("kvm-vhe").kernel_version == ""
    for wrong in ("kvm-vhe@", "kvm-vhe@latest", "none@6.1", "kvm-vhe@6.1@7"):
        with pytest.raises(InputError):
            load_config(wrong)
