# SPDX-License-Identifier: Apache-2.0
"""Measure: exits a second, what a machine costs, and whether guidance by the code of KVM finds more.

Imports ``campaign`` and rooms before it.  ``benchmark`` runs everything, ``stages`` takes a checked exit apart,
``tables`` shows it.  A new measurement is a function of ``stages`` or ``machines`` and a row of ``tables``.
"""
