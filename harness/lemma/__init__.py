# SPDX-License-Identifier: Apache-2.0
"""Compare the levels of the model with each other, without a VM: search, minimise and prove.

Search: ``case`` (a start state as a value), ``generate`` (bytes to a case), ``compare_levels`` (one comparison),
``shrink`` (the least case), ``clusters`` (what was found, stored).  Proof: ``symbolic``, ``repair`` (a statement
outside its causes), ``register_loop``, ``equivalence`` (of a mutant), ``coq``.  Pages: ``docs_page``,
``answer_page``, ``levels_page``.  Imports ``model`` and rooms before it.  A new question is a row of
``compare_levels``; z3 is used here only.
"""
