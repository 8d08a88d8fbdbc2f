# SPDX-License-Identifier: Apache-2.0
"""The test case: steps, text format, memory slots, where its code lies, how it gets simpler.

Imports ``arch``.  A new step is a row of ``steps``: syntax, who does it, operands.  If the host does it, the row's
operation is in ``protocol.OPS``, its arguments in ``agent_operations``, and ``vm/guest/operations.h`` carries it out.
"""
