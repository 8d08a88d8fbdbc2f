# SPDX-License-Identifier: Apache-2.0
"""The actor of one node, as Ray creates it there: a thread that works as the node, and answers meanwhile."""

from __future__ import annotations

import threading

from fuzz.cluster.node import Node
from fuzz.cluster.node_job import NodeJob


class NodeActor:
    """One node.  What goes in and out is text; Ray creates it again when its process dies."""

    def __init__(self, job: str) -> None:
        self._node = Node(NodeJob.from_json(job))
        self._thread = threading.Thread(target=self._node.run, name="node", daemon=True)
        self._thread.start()

    def report(self, pause: float) -> str:
        """Return how the node stands, as JSON; ``pause``: :meth:`fuzz.cluster.node.Node.report`."""
        return self._node.report(pause).to_json()

    def stop(self) -> None:
        """Make the node end."""
        self._node.stop()
