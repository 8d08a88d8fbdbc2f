# SPDX-License-Identifier: Apache-2.0
"""Ray's side of a cluster: connect to it, see which nodes are there, start an actor on each, ask and end them.

Source: Ray's documentation, "Ray Core API" and "Token authentication"; ray/_private/ray_constants.py for the variable
that keeps a local cluster on the loopback address.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from fuzz.cluster.address import Address, read_address
from fuzz.cluster.nodes import Answer, Place
from harness.errors import InputError, SetupError

MAX_RESTARTS = 20
"""So often Ray creates the actor of a node again whose process died."""
OBJECT_STORE = 80 << 20
"""Bytes of shared memory of a local cluster, about the least that Ray takes: reports are small, and none is stored."""
CONNECT_SECONDS = 60
"""So long may Ray take to answer."""
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Keeps Ray on 127.0.0.1, whatever system this is."""


def require_ray() -> None:
    """SetupError: Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise SetupError("--cluster needs Ray, which is not installed: pip install 'shadowfuzz[cluster]'")


@dataclass(frozen=True, slots=True)
class Work:
    """What nodes do: the class of their actors, which is made of a job, and the method that answers a question."""

    actor: type
    method: str


class RayNodes:
    """The nodes of a cluster that runs; a :class:`fuzz.cluster.nodes.Nodes`."""

    def __init__(self, ray: Any, work: Work) -> None:
        self._ray, self._work = ray, work
        self._actors: dict[str, Any] = {}
        self._asked: dict[Any, str] = {}

    def places(self) -> dict[str, Place]:
        """Return the nodes that are there now."""
        found = {}
        for row in self._ray.nodes():
            if row["Alive"]:
                cpus = int(row["Resources"].get("CPU", 0))
                found[str(row["NodeID"])] = Place(str(row["NodeManagerHostname"]), cpus)
        return found

    def start(self, node: str, place: str, job: str) -> None:
        """Start the actor of a node at a place."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        how = {
            "num_cpus": 0,  # its workers are processes of their own, as many as its job says
            "max_restarts": MAX_RESTARTS,
            "max_concurrency": 4,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place, soft=False),
        }
        self._actors[node] = self._ray.remote(self._work.actor).options(**how).remote(job)

    def ask(self, node: str, question: float | str) -> None:
        """Ask a node, unless it was asked and did not answer yet."""
        if node in self._actors and node not in self._asked.values():
            self._asked[getattr(self._actors[node], self._work.method).remote(question)] = node

    def answers(self) -> Iterator[tuple[str, Answer]]:
        """Yield what nodes answered since the last call."""
        from ray.exceptions import RayActorError, RayError

        if not self._asked:
            return
        done, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for each in done:
            node = self._asked.pop(each)
            try:
                yield node, Answer(text=str(self._ray.get(each)))
            except RayActorError as error:
                dead = type(error).__name__ != "ActorUnavailableError"
                yield node, Answer(gone=_first_line(error) if dead else "")
            except RayError as error:
                yield node, Answer(gone=_first_line(error))

    def stop(self, node: str) -> None:
        """Make a node end; nothing waits for it."""
        if node in self._actors:
            self._actors[node].stop.remote()

    def forget(self, node: str) -> None:
        """End the actor of a node at once, with all that it started."""
        actor = self._actors.pop(node, None)
        self._asked = {ref: name for ref, name in self._asked.items() if name != node}
        if actor is not None:
            with suppress(Exception):  # Ray raises many things for one that is gone
                self._ray.kill(actor, no_restart=True)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines and "Traceback" in str(error) else lines[0] if lines else type(error).__name__)[:300]


def _probe(place: tuple[str, int], address: Address) -> None:
    """InputError: no process listens there; Ray itself would try again for minutes."""
    try:
        socket.create_connection(place, timeout=10).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError("--cluster", None, f"no Ray cluster at {address.text}: {reason}") from error


def _place_of(address: Address) -> tuple[str, int] | None:
    """Return where a cluster that runs is; None: Ray is to look for it.  InputError: ``auto``, and there is none."""
    if address.place is not None:
        return address.place
    named = os.environ.get("RAY_ADDRESS", "")
    with suppress(OSError):
        named = named or (Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster").read_text()
    if not named:
        raise InputError("--cluster", None, "auto: no Ray cluster was started on this machine (ray start --head)")
    with suppress(InputError):
        return read_address(named.strip()).place
    return None


def is_on_loopback(place: tuple[str, int]) -> bool:
    """Whether a cluster can be reached from this machine alone, so that Ray must not use the machine's own address."""
    try:
        if not ip_address(socket.gethostbyname(place[0])).is_loopback:
            return False
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
            route.connect(("192.0.2.1", 9))  # sends nothing: it finds the address that others see
            ours = route.getsockname()[0]
        socket.create_connection((ours, place[1]), timeout=5).close()
    except (OSError, ValueError):
        return True
    return False


def _connect(ray: Any, how: Mapping[str, Any]) -> None:
    """Connect to a cluster that runs.  TimeoutError: ``ray.init`` does not return, as where something else listens."""
    failed: list[BaseException] = []

    def call() -> None:
        try:
            ray.init(**how)
        except BaseException as error:  # it is raised in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=call, name="connect", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"no answer in {CONNECT_SECONDS} s; is it the port of Ray's GCS?")
    if failed:
        raise failed[0]


@contextmanager
def connected(address: Address, work: Work) -> Iterator[RayNodes]:
    """Connect to a cluster, or start one, which ends with the block.

    InputError: there is none at the address.  SetupError: Ray is missing, or cannot be started.
    """
    require_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    place = None if address.is_local else _place_of(address)
    if place is not None:
        _probe(place, address)
    if address.is_local or (place is not None and is_on_loopback(place)):
        os.environ.update(_LOOPBACK)
    import ray

    how: dict[str, Any] = {"address": address.text, "log_to_driver": False, "logging_level": logging.CRITICAL}
    if address.is_local:
        how |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        if address.is_local:
            ray.init(**how)  # its processes end with the thread that started them
        else:
            _connect(ray, how)
    except Exception as error:  # Ray raises exceptions of many types
        if address.is_local:
            raise SetupError(f"Ray cannot start a cluster on this machine: {_first_line(error)}") from error
        raise InputError("--cluster", None, f"no Ray cluster at {address.text}: {_first_line(error)}") from error
    try:
        yield RayNodes(ray, work)
    finally:
        with suppress(Exception):
            ray.shutdown()
