# SPDX-License-Identifier: Apache-2.0
"""The ``shadowfuzz`` command: make scenarios, run campaigns on targets, store and triage what they find.

Rooms, each importing only from those before it::

    paths < generate < store < targets < campaign < {bench, corpus} < triage < cli
"""
