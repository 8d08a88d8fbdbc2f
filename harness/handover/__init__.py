# SPDX-License-Identifier: Apache-2.0
"""A finding for somebody who does not have shadowfuzz: a mail to KVM's maintainers, a program for the kernel's tree.

``shown`` decides which value of a trace a program can compare, and which steps lead to it; ``selftest`` writes these
steps in the form of the kernel's KVM selftests, from the parts in ``selftest.c.in``; ``mail`` writes the mail.  Pure.
A step that a program is to have is a row of ``selftest_steps``.  Imports ``report`` and rooms before it.
"""
