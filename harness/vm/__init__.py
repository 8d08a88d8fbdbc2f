# SPDX-License-Identifier: Apache-2.0
"""Build and run targets: QEMU, kernels, the agent in the target.  Independent of relations and model.

``config`` reads a target file, ``build`` makes the files that it boots, ``target`` boots it, ``executor`` runs a
scenario and returns its trace; ``recorder`` records a program instead.  ``guest/`` is the C code of agent and recording
module, ``recorded/`` the programs that ``record`` provides.  Imports ``trace``, ``scenario``, ``arch``.  A new target
is a file in qemu_configs/.
"""
