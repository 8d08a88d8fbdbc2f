# SPDX-License-Identifier: Apache-2.0
"""Measure what scenarios exercise, and list what they cannot: steps, exits, rules of the contract, KVM's own code.

Imports ``findings`` and rooms before it.  The exits that a step can meet are a row of ``reachable_exits``; a handler of
KVM is a row of ``kvm_handlers``.
"""
