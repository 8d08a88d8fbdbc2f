# SPDX-License-Identifier: Apache-2.0
"""Fetch Debian packages by name, as an unprivileged user, through a private apt state.

apt checks every signature and hash as usual; only its directories are private, so that the machine's configuration,
lists and package database do not change.  Measured: update 1.5 s, kernel and headers 2 s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import SetupError
from harness.vm.cache import hash_file
from harness.vm.debian.apt_sources import Source, debian_sources, read_sources, security_sources
from harness.vm.tools import Progress, quiet, reason_line, require_tool, run_tool

if TYPE_CHECKING:
    from debian.deb822 import Packages

TARGET_ARCHITECTURE = "arm64"

PASSED_OPTIONS = re.compile(r"Acquire::(https?::.*|Retries|ForceIPv[46]|Check-Valid-Until|Check-Date|Max-FutureTime)")
"""Options of the machine's apt for access to mirrors (proxy, certificates) and for the check of dates."""


Offer = Callable[[Iterable[Source], str], tuple[Source, ...]]
"""Function from the machine's sources and its release's name to further sources of the same archive."""

UPDATE_SECONDS = 300.0
"""For 20 MB of lists; every unreachable mirror takes up to a minute of it."""


@dataclass(frozen=True, slots=True)
class Package:
    """One version of one package, as the archive describes it."""

    name: str
    version: str
    architecture: str
    depends: tuple[str, ...]
    sha256: str

    @property
    def wanted(self) -> str:
        """The argument of apt-get for exactly this version."""
        return f"{self.name}:{self.architecture}={self.version}"


@dataclass(frozen=True, slots=True)
class Archive:
    """Debian's archive on this machine's mirrors, with its state below `state`."""

    state: Path
    build_architecture: str
    offline_reason: str
    progress: Progress

    def show(self, name: str, architecture: str = TARGET_ARCHITECTURE) -> Package:
        """Return the version of a package that apt would install; SetupError if the archive has none."""
        argv = ["apt-cache", "show", "--no-all-versions", f"{name}:{architecture}"]
        status, output = run_tool(argv, f"looking up {name}", env=self.environment, check=False)
        if status != 0 or not output.startswith("Package: "):
            if self.offline_reason:
                raise SetupError(f"cannot get {name} from Debian's archive: {self.offline_reason}")
            raise SetupError(f"Debian's archive, as configured on this machine, has no package {name}")
        return parse_record(output)

    def download(self, packages: Sequence[Package]) -> tuple[Path, ...]:
        """Fetch packages; return the .deb files, in order.

        A partial file of a killed download is completed; an existing correct file is not fetched again.
        """
        directory = self.state / "debs"
        directory.mkdir(parents=True, exist_ok=True)
        what = f"fetching {packages[0].name} {packages[0].version} and {len(packages) - 1} more packages"
        argv = ["apt-get", "download", *(package.wanted for package in packages)]
        run_tool(argv, what, progress=self.progress, cwd=directory, env=self.environment)
        return tuple(_deb(directory, package) for package in packages)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment that makes apt's programs use this state."""
        return {"APT_CONFIG": str(self.state / "apt.conf")}


def _deb(directory: Path, package: Package) -> Path:
    # apt escapes characters that a file name must not have (an epoch's colon becomes %3a): only both ends are certain.
    found = [
        path
        for path in directory.glob(f"{package.name}_*.deb")
        if path.name.split("_")[1].replace("%3a", ":") == package.version
    ]
    if len(found) != 1:
        raise SetupError(f"apt-get download left {len(found)} files of {package.wanted} in {directory}")
    # apt checks what it fetches, but accepts an existing file of the right length unchecked.
    if hash_file(found[0]) == package.sha256:
        return found[0]
    found[0].unlink()
    raise SetupError(f"{found[0].name} was damaged and is removed: run the command again to fetch it again")


def open_archive(
    state: Path,
    progress: Progress = quiet,
    etc: Path = Path("/etc"),
    *,
    offer: Offer = security_sources,
    kind: str = "deb",
) -> Archive:
    """Write the private apt state below `state`, fetch the package lists, and return the archive.

    `etc` is the machine's ``/etc``; `offer` returns further suites for the machine's sources and release; `kind` is
    ``deb`` or ``deb-src``.  A list that cannot be fetched is not an error here: an older one may suffice.  The caller
    holds a lock, because apt refuses concurrent use of one state.
    """
    for command, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("gpgv", "gpgv")):
        require_tool(command, package)
    configured = find_sources(etc)
    codename = release_codename(etc)
    _, architecture = run_tool(["dpkg", "--print-architecture"], "asking dpkg for its architecture")
    _, dump = run_tool(["apt-config", "dump"], "reading apt's configuration")
    for name in ("lists/partial", "cache/archives/partial", "sources.d"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "preferences").write_text(PREFERENCES)
    (state / "apt.conf").write_text(render_apt_conf(state, architecture.strip(), passed_options(dump)))
    places = {(source.uri.rstrip("/"), source.suite.rstrip("/")): source for source in offer(configured, codename)}
    # The machine's own entries take precedence: apt refuses a file that names a source twice with different options.
    places |= {(source.uri.rstrip("/"), source.suite.rstrip("/")): source for source in configured}
    (state / "sources.d" / "debian.sources").write_text("\n".join(source.stanza(kind) for source in places.values()))
    env = {"APT_CONFIG": str(state / "apt.conf")}
    _, output = run_tool(
        ["apt-get", "update"],
        "fetching Debian's package lists",
        progress=progress,
        env=env,
        check=False,
        timeout=UPDATE_SECONDS,
    )
    reason = fetch_failure(output)
    return Archive(state, architecture.strip(), reason, progress)


def find_sources(etc: Path) -> tuple[Source, ...]:
    """Return this machine's sources of Debian's archive; SetupError if it has none."""
    codename = release_codename(etc)
    found = debian_sources(read_sources(etc / "apt"), codename)
    if not found:
        raise SetupError(
            f"no source of Debian {codename} in {etc}/apt (sources.list or sources.list.d): "
            "the target's kernel comes from the Debian archive that this machine itself uses"
        )
    return found


def release_codename(etc: Path) -> str:
    """Return the Debian release that this machine runs, such as ``bookworm``; SetupError if it is not Debian."""
    try:
        text = (etc / "os-release").read_text(errors="replace")
    except OSError as error:
        raise SetupError(f"cannot read {etc}/os-release: {error.strerror}; this needs Debian 12 or 13") from error
    fields: dict[str, str] = dict(re.findall(r"""^([A-Z_]+)=["']?([^"'\n]*)["']?$""", text, re.MULTILINE))
    codename = fields.get("VERSION_CODENAME", "")
    if fields.get("ID") != "debian" or not re.fullmatch(r"[a-z]+", codename):
        raise SetupError(
            f"this machine runs {fields.get('PRETTY_NAME', 'an unknown system')}; this needs Debian 12 or 13"
        )
    return codename


PREFERENCES = """\
Package: *
Pin: release o=Debian
Pin-Priority: 500

Package: *
Pin: release o=Debian Backports
Pin-Priority: 100

Package: *
Pin: release o=*
Pin-Priority: -1
"""
"""Only packages whose signed Release file has a Debian origin are selected (apt_preferences(5)); the first match
counts."""


def passed_options(dump: str) -> tuple[str, ...]:
    """Return the lines of ``apt-config dump`` that the private apt copies from the machine's."""
    set_ones = (line.strip() for line in dump.splitlines() if not line.endswith('"";'))
    return tuple(line for line in set_ones if PASSED_OPTIONS.fullmatch(line.partition(" ")[0]))


def render_apt_conf(state: Path, build_architecture: str, passed: Sequence[str]) -> str:
    """Return the apt configuration that keeps everything below `state`; trusted keys stay the machine's."""
    architectures = dict.fromkeys([TARGET_ARCHITECTURE, build_architecture])
    rows = (
        # First, so that the lines below override them.
        *passed,
        f'Dir::State "{state}";',
        f'Dir::State::status "{state}/status";',
        f'Dir::State::lists "{state}/lists";',
        f'Dir::Cache "{state}/cache";',
        # Half of the disk space: 100 MB that would be read once.
        'Dir::Cache::srcpkgcache "";',
        'Acquire::GzipIndexes "true";',
        'Dir::Etc::sourcelist "/dev/null";',
        f'Dir::Etc::sourceparts "{state}/sources.d";',
        f'Dir::Etc::preferences "{state}/preferences";',
        'Dir::Etc::preferencesparts "/dev/null";',
        'Dir::Etc::main "/dev/null";',
        'Dir::Etc::parts "/dev/null";',
        f'APT::Architecture "{TARGET_ARCHITECTURE}";',
        f"APT::Architectures {{ {' '.join(f'{name!r};' for name in architectures)} }};".replace("'", '"'),
        # Matters for root only: the user that apt would change to cannot read the cache.
        'APT::Sandbox::User "";',
        'Acquire::Languages "none";',
        # Detect an unreachable mirror in one minute, not in ten.
        'Acquire::http::Timeout "20";',
        'Acquire::https::Timeout "20";',
        'Acquire::Retries "2";',
    )
    return "\n".join(rows) + "\n"


def fetch_failure(output: str) -> str:
    """Return the error of ``apt-get update`` for lists that it could not fetch; empty if it fetched all of them."""
    troubles = [line for line in output.splitlines() if line.startswith(("W: Failed to fetch", "E: "))]
    return reason_line("\n".join(troubles)).partition(": ")[2]


def parse_record(text: str) -> Package:
    """Return the first package of ``apt-cache show``: fields as in deb-control(5), Depends without versions.

    Of alternatives (``a | b``) the first is used, as by apt.
    """
    return record_package(record_fields(text.partition("\n\n")[0]))


def record_fields(record: str) -> Packages:
    """Return the fields of a record of deb-control(5)."""
    from debian.deb822 import Packages  # 50 ms, which only set-up needs

    return Packages(record)


def record_package(fields: Packages) -> Package:
    """Return the package of a record; SetupError names a field that is missing."""
    try:
        depends = tuple(alternatives[0]["name"] for alternatives in fields.relations["depends"] or ())
        return Package(fields["Package"], fields["Version"], fields["Architecture"], depends, fields["SHA256"])
    except KeyError as error:
        raise SetupError(f"apt-cache show gave a record without the field {error.args[0]!s}") from error


def unpack(debs: Sequence[Path], directory: Path, progress: Progress = quiet) -> None:
    """Unpack .deb files into one `directory`, without running their scripts."""
    for deb in debs:
        run_tool(["dpkg-deb", "-x", str(deb), str(directory)], f"unpacking {deb.name}", progress=progress)
