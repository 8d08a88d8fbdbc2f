# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: exits per second, the cost of a machine, and whether guidance by edges of KVM's code finds more.

Imports ``campaign`` and rooms before it.  ``benchmark`` runs everything, ``stages`` measures each part of a checked
exit, ``tables`` shows the results.  A new measurement is a function of ``stages`` or ``machines`` and a row
of ``tables``.
"""
