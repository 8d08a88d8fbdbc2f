# SPDX-License-Identifier: Apache-2.0
"""The archives that are read from a machine's apt sources, in both formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SetupError
from harness.vm.debian.apt import (
    find_sources,
    release_codename,
)
from harness.vm.debian.apt_sources import (
    Source,
    debian_sources,
    parse_deb822,
    parse_one_line,
    read_sources,
    security_sources,
)

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
    # An embedded key keeps its lines; the option Trusted is not copied.
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
    """No text of a source can add a second source, or an option, to the private file."""
    for source in debian_sources(parse_deb822(f"Types: deb\nURIs: http://x/debian\n{text}"), "bookworm"):
        assert source.stanza().count("\n\n") == 0
    for source in parse_one_line(f"deb [signed-by={text}] {MIRROR} bookworm main"):
        assert len(source.stanza().strip().splitlines()) <= 5


def test_unreadable_list_is_skipped(tmp_path: Path) -> None:
    machine = etc(tmp_path, a_list=ONE_LINE)
    (machine / "apt" / "sources.list.d" / "gone.list").symlink_to("nowhere")
    assert len(read_sources(machine / "apt")) > 3
