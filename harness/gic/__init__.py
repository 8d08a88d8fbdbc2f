# SPDX-License-Identifier: Apache-2.0
"""Model a GICv3 by Arm IHI 0069 as a pure state machine: distributor, redistributors, the CPU interface of each vCPU.

Every fact has three values: true, false, and None where it is unknown (a register that software has not written since
the reset, a choice that the architecture leaves open).  What depends on None is not compared.  Imports ``arch``; knows
neither KVM nor traces.  A register of the distributor is a row of ``registers``.
"""
