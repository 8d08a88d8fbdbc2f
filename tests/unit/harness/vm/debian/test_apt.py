# SPDX-License-Identifier: Apache-2.0
"""Which archives a machine's apt sources give us, in both formats; what apt is told, and what its answers mean."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SetupError
from harness.vm.build.prepare import resolve_kernel
from harness.vm.debian.apt import (
    Archive,
    Package,
    fetch_failure,
    find_sources,
    parse_record,
    passed_options,
    release_codename,
    render_apt_conf,
)
from harness.vm.debian.apt_sources import (
    Source,
    debian_sources,
    parse_deb822,
    parse_one_line,
    read_sources,
    security_sources,
)
from harness.vm.tools import quiet, run_tool, says_disk_full, telling_line

MIRROR = "http://mirror.example/debian"
KEY = (("Signed-By", "/usr/share/keyrings/debian-archive-keyring.gpg"),)

ONE_LINE = f"""\
# deb {MIRROR} bookworm contrib
deb {MIRROR} bookworm main contrib non-free-firmware # trailing words
deb-src {MIRROR} bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {MIRROR}-security bookworm-security main
deb http://mirror.example/debian/ bookworm-updates main
deb [signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.example/linux/debian bookworm main
deb https://vendor.example/apt bookworm main
deb https://vendor.example/debian stable main
deb https://vendor.example/debian bookworm stable
deb cdrom:[Debian 12]/ bookworm main
deb {MIRROR} trixie main
"""

DEB822 = f"""\
Types: deb deb-src
# a comment between fields
URIs: {MIRROR}
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {MIRROR}-security
Suites: bookworm-security
Components: main
Enabled: no

types: deb
uris: {MIRROR}-security/
suites: bookworm-security
components: main
trusted: yes
check-valid-until: no
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb-src
URIs: {MIRROR}
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/vendor.asc
"""


def test_one_line_format() -> None:
    found = debian_sources(parse_one_line(ONE_LINE), "bookworm")
    assert found == (
        Source(MIRROR, "bookworm", ("main",)),
        Source(f"{MIRROR}-security", "bookworm-security", ("main",), KEY),
        Source(f"{MIRROR}/", "bookworm-updates", ("main",)),
    )


def test_deb822_format() -> None:
    found = debian_sources(parse_deb822(DEB822), "bookworm")
    assert [(source.uri, source.suite) for source in found] == [
        (MIRROR, "bookworm"),
        (MIRROR, "bookworm-updates"),
        (f"{MIRROR}-security/", "bookworm-security"),
    ]
    assert found[0].options == KEY
    # The key that is written out keeps its lines; that an owner trusts a source blindly is not taken over.
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY\n -----END PGP PUBLIC KEY BLOCK-----"
    assert found[2].options == (("Check-Valid-Until", "no"), ("Signed-By", key))


def test_stanza_is_read_back() -> None:
    for source in debian_sources(parse_deb822(DEB822), "bookworm"):
        assert parse_deb822(source.stanza()) == (source,)


def test_mirror_lists_of_cloud_images() -> None:
    """Debian's own cloud images name their mirrors in a file."""
    text = "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm\nComponents: main\n"
    assert len(debian_sources(parse_deb822(text), "bookworm")) == 1


def test_security_suite_is_offered_once() -> None:
    main = Source(MIRROR, "bookworm", ("main",), KEY)
    offer = Source(f"{MIRROR}-security", "bookworm-security", ("main",), KEY)
    assert security_sources([main], "bookworm") == (offer,)
    assert security_sources([main, offer], "bookworm") == ()
    assert security_sources([Source("mirror+file:///x", "bookworm", ("main",))], "bookworm") == ()


def etc(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    (tmp_path / "os-release").write_text('PRETTY_NAME="Debian 12"\nID=debian\nVERSION_CODENAME=bookworm\n')
    for name, text in files.items():
        (tmp_path / "apt" / "sources.list.d" / name.replace("_", ".")).write_text(text)
    return tmp_path


def test_machine_with_both_formats(tmp_path: Path) -> None:
    machine = etc(
        tmp_path, a_list=ONE_LINE, b_sources=DEB822, c_disabled=DEB822, d_list="garbage \0 [[ deb\ndeb\ndeb ["
    )
    (machine / "apt" / "sources.list").write_text(f"deb {MIRROR} bookworm main\n")
    (machine / "apt" / "sources.list.d" / "e.list").mkdir()
    found = find_sources(machine)
    assert found[0] == Source(MIRROR, "bookworm", ("main",))
    assert [(source.uri.rstrip("/"), source.suite) for source in found] == [
        (MIRROR, "bookworm"),
        (f"{MIRROR}-security", "bookworm-security"),
        (MIRROR, "bookworm-updates"),
    ]
    assert "vendor" not in "".join(source.stanza() for source in found)


def test_machine_without_debian(tmp_path: Path) -> None:
    machine = etc(tmp_path, vendor_list="deb https://vendor.example/apt bookworm main\n")
    with pytest.raises(SetupError, match="no source of Debian bookworm in") as caught:
        find_sources(machine)
    assert "\n" not in str(caught.value)
    (machine / "os-release").write_text('PRETTY_NAME="Other 1"\nID=other\nVERSION_CODENAME=bookworm\n')
    with pytest.raises(SetupError, match="this machine runs Other 1; this needs Debian 12"):
        release_codename(machine)
    with pytest.raises(SetupError, match="cannot read"):
        release_codename(machine / "none")


@given(st.text(max_size=300))
def test_no_text_breaks_the_readers(text: str) -> None:
    for source in (*parse_one_line(text), *parse_deb822(text)):
        assert source.uri
    parse_one_line(f"deb {text}")
    parse_deb822(f"Types: deb\nURIs: {text}\nSuites: bookworm\nComponents: main\n")


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_a_source_is_one_stanza(text: str) -> None:
    """Whatever stands in a source, it cannot add a second one, or an option, to our file."""
    for source in debian_sources(parse_deb822(f"Types: deb\nURIs: http://x/debian\n{text}"), "bookworm"):
        assert source.stanza().count("\n\n") == 0
    for source in parse_one_line(f"deb [signed-by={text}] {MIRROR} bookworm main"):
        assert len(source.stanza().strip().splitlines()) <= 5


def test_unreadable_list_is_skipped(tmp_path: Path) -> None:
    machine = etc(tmp_path, a_list=ONE_LINE)
    (machine / "apt" / "sources.list.d" / "gone.list").symlink_to("nowhere")
    assert len(read_sources(machine / "apt")) > 3


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
    assert conf.index("proxy.example") < conf.index("Dir::State")  # ours come last, and so win
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
    """The archive of a small table; what is not in it is not there."""

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
    # A fake apt-get, for the real one would fetch; the file name is as apt writes it.
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


def test_tools_say_what_went_wrong() -> None:
    lines: list[str] = []
    status, output = run_tool(["sh", "-c", "echo out; echo err >&2; exit 3"], "x", check=False, progress=lines.append)
    assert (status, output, lines) == (3, "out\nerr\n", [])
    with pytest.raises(SetupError, match=r"compiling failed: a\.c:1:1: error: no such thing"):
        run_tool(
            ["sh", "-c", "echo a.c: In function; echo 'a.c:1:1: error: no such thing'; echo make: Error 1; exit 2"],
            "compiling",
        )
    with pytest.raises(SetupError, match="x failed: exit status 1"):
        run_tool(["false"], "x")
    with pytest.raises(OSError, match="No space left on device"):
        run_tool(["sh", "-c", "echo 'cc1: error: a.s: No space left on device' >&2; exit 1"], "compiling", check=False)
    assert says_disk_full("E: You don't have enough free space in /var/cache/apt/archives/.")
    assert telling_line("") == ""


def test_slow_tools_are_reported() -> None:
    lines: list[str] = []
    run_tool(["sleep", "2.3"], "sleeping", progress=lines.append)
    assert lines == ["sleeping (2 s)"]


def test_stuck_tool_is_ended_with_its_children(tmp_path: Path) -> None:
    start = time.monotonic()
    script = f"sleep 600 & echo $! >{tmp_path}/child; trap '' TERM; wait"
    with pytest.raises(SetupError, match=r"fetching did not end within 1 s; run the command again"):
        run_tool(["sh", "-c", script], "fetching", timeout=1)
    assert time.monotonic() - start < 60
    child = int((tmp_path / "child").read_text())
    while alive(child):
        assert time.monotonic() - start < 60, "the tool's child is still there"
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_tools_do_not_see_our_make(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAKEFLAGS", "ARCH", "CC", "KCFLAGS"):
        monkeypatch.setenv(name, "--from-outside")
    _, output = run_tool(["env"], "env")
    assert "--from-outside" not in output
