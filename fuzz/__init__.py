# SPDX-License-Identifier: Apache-2.0
"""The ``shadowfuzz`` command: generate scenarios, run campaigns on targets, store and triage their findings.

Rooms, each importing only from those before it::

    paths < generate < store < targets < campaign < {bench, corpus} < triage < cli
"""
