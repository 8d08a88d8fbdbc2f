# SPDX-License-Identifier: Apache-2.0
"""Analyse scenarios and findings: replay, minimise, confirm, bisect, compare releases and emulators, report.

Each module has the name of its command; it takes a frozen plan and returns values, which ``cli`` prints.  It may import
every room except ``cli``.  A module ``..._run`` runs many targets; the module without the suffix has the pure
decisions.
"""
