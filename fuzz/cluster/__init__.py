# SPDX-License-Identifier: Apache-2.0
"""One campaign on many machines: Ray places and watches an actor a node, a database holds what all of them found.

``ray_nodes`` and ``ray_actor`` are the only modules that import Ray.  ``node`` is what an actor does, ``campaign`` the
whole from beginning to end; ``address``, ``node_job``, ``node_report`` and ``totals`` decide and know no Ray.  What
nodes say of each other is text that is parsed; Ray itself trusts its nodes (docs/cluster.md).
"""
