# SPDX-License-Identifier: Apache-2.0
"""Read this machine's apt sources and select those of Debian's archive.

Both formats of sources.list(5).  Lines that do not parse are skipped without an error: apt reports them itself, and one
valid entry is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """One source of an archive: URI, suite, components, and the apt options that are kept (deb822 names)."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    def stanza(self, kind: str = "deb") -> str:
        """Return the source as a deb822 stanza, without architectures: the private apt configuration sets them."""
        place = [f"URIs: {self.uri}", f"Suites: {self.suite}", f"Components: {' '.join(self.components)}"]
        return "\n".join([f"Types: {kind}", *place, *(f"{name}: {value}" for name, value in self.options)]) + "\n"


KEPT_OPTIONS: Mapping[str, str] = {
    "signed-by": "Signed-By",
    "check-valid-until": "Check-Valid-Until",
    "check-date": "Check-Date",
    "by-hash": "By-Hash",
    "snapshot": "Snapshot",
}
"""Options for fetching and checking.  Not ``Trusted``: unsigned archives are not used."""

NO = frozenset({"no", "false", "without", "off", "disable", "0"})
"""apt's values for false: ``StringToBool`` in apt-pkg/contrib/strutl.cc."""

DEBIAN_KEYRING = re.compile(r"debian-archive-[a-z0-9.-]*")
"""The files of the package debian-archive-keyring, in /usr/share/keyrings and /etc/apt/trusted.gpg.d."""

DEBIAN_PATH = re.compile(r"debian(-security)?")
"""The last part of a Debian mirror's path: mirrors keep the layout of the archive."""

SCHEMES = ("http:", "https:", "file:", "copy:", "mirror+", "mirror:", "ftp:", "tor+")


def read_sources(etc_apt: Path) -> tuple[Source, ...]:
    """Return every enabled binary source configured below `etc_apt` (``/etc/apt``), in apt's order."""
    paths = [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]
    found: list[Source] = []
    for path in paths:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if path.suffix == ".list":
            found += parse_one_line(text)
        elif path.suffix == ".sources":
            found += parse_deb822(text)
    return tuple(found)


ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>.*)")


def parse_one_line(text: str) -> tuple[Source, ...]:
    """Return the sources of a ``.list`` file: ``deb [option=value ...] URI suite component...``."""
    found: list[Source] = []
    for line in text.splitlines():
        match = ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        # `signed-by+=x` and `-=` also exist; they change a default that a .list file does not have.
        pairs = [word.partition("=") for word in (match["options"] or "").split()]
        options = {name.rstrip("+").lower(): value for name, _, value in pairs}
        found += _sources([match["uri"]], [match["suite"]], match["components"].split(), options)
    return tuple(found)


def parse_deb822(text: str) -> tuple[Source, ...]:
    """Return the sources of a ``.sources`` file: stanzas of ``Field: value``, every URI with every suite."""
    found: list[Source] = []
    for fields in _stanzas(text):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").strip().lower() in NO:
            continue
        uris, suites, components = (fields.get(name, "").split() for name in ("uris", "suites", "components"))
        found += _sources(uris, suites, components, fields)
    return tuple(found)


def _stanzas(text: str) -> Iterator[Mapping[str, str]]:
    from debian.deb822 import Deb822  # 50 ms, which only set-up needs

    for stanza in Deb822.iter_paragraphs(text.splitlines(), use_apt_pkg=False):
        yield {name.lower(): value for name, value in stanza.items()}


def _sources(
    uris: Iterable[str], suites: Iterable[str], components: Iterable[str], options: Mapping[str, str]
) -> Iterable[Source]:
    kept = tuple((KEPT_OPTIONS[name], value) for name, value in sorted(options.items()) if name in KEPT_OPTIONS)
    parts = tuple(components)
    suites = tuple(suites)
    return [Source(uri, suite, parts, kept) for uri in uris for suite in suites if uri.lower().startswith(SCHEMES)]


def debian_sources(sources: Iterable[Source], codename: str) -> tuple[Source, ...]:
    """Return the sources that are Debian's own archive for the release `codename`, with the component main only.

    Another vendor's archive may have the same layout; its key distinguishes it here.  What passes this check is caught
    by the origin that apt reads from the signed Release file (apt.py).
    """
    suites = {codename, f"{codename}-updates", f"{codename}-security", f"{codename}-backports", f"{codename}/updates"}
    found: dict[tuple[str, str], Source] = {}
    for source in sources:
        if source.suite.rstrip("/") in suites and "main" in source.components and _is_debian(source):
            # Only the first of each: apt refuses a file that names a source twice with different keys.
            place = (source.uri.rstrip("/"), source.suite)
            found.setdefault(place, Source(source.uri, source.suite, ("main",), source.options))
    return tuple(found.values())


def _is_debian(source: Source) -> bool:
    key = dict(source.options).get("Signed-By", "")
    if key.startswith("/"):
        return all(DEBIAN_KEYRING.fullmatch(Path(name).name) for name in re.split(r"[\s,]+", key.strip()))
    # No key option, or an embedded key: the path decides.
    return source.uri.startswith("mirror") or DEBIAN_PATH.fullmatch(_last_part(source.uri)) is not None


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def security_sources(sources: Iterable[Source], codename: str) -> tuple[Source, ...]:
    """Return the expected sources of the security suite on the same mirrors; empty if the machine already has one.

    That suite has kernels newer than the release's own.  A mirror ``.../debian`` usually has ``.../debian-security``
    next to it, but it may be missing.
    """
    known = tuple(sources)
    suite = f"{codename}-security"
    if any(source.suite.rstrip("/") in (suite, f"{codename}/updates") for source in known):
        return ()
    offers = (
        Source(f"{source.uri.rstrip('/')}-security", suite, ("main",), source.options)
        for source in known
        if source.suite == codename and _last_part(source.uri) == "debian"
    )
    return tuple(dict.fromkeys(offers))
