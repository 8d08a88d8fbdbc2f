# SPDX-License-Identifier: Apache-2.0
"""Predict what guest code does between an entry and the next exit, by the Arm ARM alone.

``predict_run`` begins with the registers at an entry and follows the instructions; where the architecture or the record
leaves the result open, it says so and why.  Imports ``trace``, ``gic`` and rooms before it.  The effect of a new
instruction goes to ``execute``, that of a load or store to ``load_store``, an address translation to ``stage1`` and
``mmu``.
"""
