# SPDX-License-Identifier: Apache-2.0
"""Compare what KVM did with what was expected: one module per relation, with the rules that it compares by.

``registry`` is the table of all relations; checks, reports and documents go through it.  A new relation is a module
here and a row there: see docs/architecture.md.  ``evidence`` is what a relation may look at, ``divergence`` what it
returns.  Imports ``guest``, ``model.prediction``, ``trace`` and rooms before it; knows no catalogue and no report.
"""
