# SPDX-License-Identifier: Apache-2.0
"""Describe AArch64 as tables from the Arm ARM: registers, exception classes, instructions, CPU models.

Nothing here depends on KVM.  Imports ground files only.  A register of the recorded state is a row of ``registers``; a
system register that guests may access is a row of ``sysregs``; an instruction is a row of ``a64``; a CPU model is a row
of ``cpu_models``.
"""
