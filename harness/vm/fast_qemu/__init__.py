# SPDX-License-Identifier: Apache-2.0
"""A QEMU that loses less time at a world switch: Debian's source with the project's change, built in the cache.

``build`` fetches and builds, ``edits`` puts the change in, ``stamp`` says on which targets the result recorded the same
bytes as Debian's own program.  The change is ``tlb_sets.c.inc`` and ``tlb_sets.h`` (GPL-2.0-or-later, like QEMU, of
which they become a part), and ``edits-SERIES.toml``, the lines that call them.  Another series of QEMU is another such
file.  docs/fast-qemu.md says what it is for.
"""
