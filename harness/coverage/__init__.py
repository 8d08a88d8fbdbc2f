# SPDX-License-Identifier: Apache-2.0
"""What scenarios exercised, and what they cannot: steps, exits, rules of the contract, KVM's own code.

Imports ``findings`` and rooms before it.  What a step can meet is a row of ``reachable_exits``; a handler of KVM is a
row of ``kvm_handlers``.
"""
