# SPDX-License-Identifier: Apache-2.0
"""The lemma campaign: level against level of the model, without a VM.

``case`` (a start state as a value), ``generate`` (bytes to case), ``differ`` (one comparison), ``shrink`` (the least
case), ``clusters`` (what was found, stored), ``prove`` (symbolic), ``coq`` and ``page`` (what a reader sees).
"""
