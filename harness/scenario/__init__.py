# SPDX-License-Identifier: Apache-2.0
"""Define the test case: steps, text format, memory slots, layout of its code, simplification.

Imports ``arch``.  A new step is a row of ``steps``: syntax, guest or host, operands.  For a host step, the operation is
in ``protocol.OPS``, its arguments are in ``agent_operations``, and ``vm/guest/operations.h`` executes it.
"""
