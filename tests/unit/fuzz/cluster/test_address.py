# SPDX-License-Identifier: Apache-2.0
"""What ``--cluster`` and its database may be."""

from __future__ import annotations

import pytest

from fuzz.cluster.address import Address, check_store, read_address
from harness.errors import InputError


@pytest.mark.parametrize("text", ["local", "auto", "ray://head.example:10001", "10.0.0.1:6379", "[::1]:6379"])
def test_addresses(text: str) -> None:
    assert read_address(text) == Address(text)
    assert read_address(text).is_local == (text == "local")


def test_host_and_port() -> None:
    assert Address("auto").place is None and Address("local").place is None
    assert Address("ray://head.example:10001").place == ("head.example", 10001)
    assert Address("[::1]:6379").place == ("::1", 6379)


@pytest.mark.parametrize("text", ["", "Local", "ray://", "ray://head", "host:0", "host:65536", "host:1;x", "a b:1"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(InputError, match=r"--cluster: .*expected local, auto, HOST:PORT or ray://HOST:PORT"):
        read_address(text)


def test_nodes_elsewhere_need_a_server() -> None:
    check_store(Address("local"), None)
    check_store(Address("local"), "sqlite:////tmp/x")
    check_store(Address("auto"), "postgresql://u@h/db")
    for store in (None, "sqlite:////tmp/x"):
        with pytest.raises(InputError, match="--store: with --cluster, expected postgresql:"):
            check_store(Address("auto"), store)
