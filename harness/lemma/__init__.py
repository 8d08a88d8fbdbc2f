# SPDX-License-Identifier: Apache-2.0
"""Level against level of the model, without a VM: search, shrink and prove where two levels differ.

``case`` (a start state as a value), ``generate`` (bytes to a case), ``compare_levels`` (one comparison), ``shrink``
(the least case), ``clusters`` (what was found, stored), ``prove`` (symbolic), ``coq`` and ``docs_page`` (what a reader
sees).  Imports ``model`` and rooms before it.  A new question is a row of ``compare_levels``; z3 is used here only.
"""
