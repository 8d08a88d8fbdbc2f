# SPDX-License-Identifier: Apache-2.0
"""A GICv3 as the architecture has it (Arm IHI 0069), as far as it is certain what a guest sees of it.

Every fact here has three values: true, false, and None where nobody knows (a register that software has not written
since the reset, a choice that the architecture leaves to an implementation).  What depends on None is not judged.
"""
