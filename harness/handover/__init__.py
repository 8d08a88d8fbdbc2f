# SPDX-License-Identifier: Apache-2.0
"""Report a finding to readers without shadowfuzz: a mail to KVM's maintainers, a program for the kernel's tree.

``shown`` decides which value of a trace a program can compare, and which steps lead to it; ``selftest`` writes these
steps as a program in the style of the kernel's KVM selftests, from the parts in ``selftest.c.in``; ``mail`` writes the
mail.  Pure.  A step that programs support is a row of ``selftest_steps``.  Imports ``report`` and rooms before it.
"""
