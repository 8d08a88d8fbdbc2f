# SPDX-License-Identifier: Apache-2.0
"""What ``--cluster`` names: a cluster to start on this machine, or one that runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import InputError

LOCAL, AUTO = "local", "auto"
_PLACE = re.compile(r"(?:ray://)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cluster is: ``local``, ``auto``, or a host with a port, which ``ray://`` may precede."""

    text: str

    @property
    def is_local(self) -> bool:
        """Whether the cluster is started for this campaign, on this machine, and ends with it."""
        return self.text == LOCAL

    @property
    def place(self) -> tuple[str, int] | None:
        """Host and port, where it names one."""
        if self.text in (LOCAL, AUTO):
            return None
        host, _, port = self.text.removeprefix("ray://").rpartition(":")
        return host.strip("[]"), int(port)


def read_address(text: str) -> Address:
    """Read the address of a cluster.  InputError: it is none."""
    place = _PLACE.fullmatch(text)
    if text not in (LOCAL, AUTO) and (place is None or not 0 < int(place[1]) < 1 << 16):
        raise InputError("--cluster", None, f"{text[:60]!r}: expected local, auto, HOST:PORT or ray://HOST:PORT")
    return Address(text)


def check_store(address: Address, store: str | None) -> None:
    """Check that all nodes can reach the database.  InputError: it is a file, and they may be on other machines."""
    is_file = store is None or store.startswith("sqlite")
    if is_file and not address.is_local:
        raise InputError("--store", None, "with --cluster, expected postgresql://USER@HOST/NAME, which all nodes reach")
