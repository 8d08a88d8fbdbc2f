# SPDX-License-Identifier: Apache-2.0
"""Build and run targets: QEMU, kernels, the agent in the guest.  Knows no relation and no model.

``config`` reads a target file, ``build`` makes what it boots, ``target`` boots it, ``executor`` runs a scenario and
returns its trace; ``recorder`` records a program instead.  ``guest/`` is the C code of agent and recording module,
``recorded/`` the programs that ``record`` comes with.  Imports ``trace``, ``scenario``, ``arch``.  A new target is a
file in qemu_configs/.
"""
