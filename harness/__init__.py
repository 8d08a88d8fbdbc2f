# SPDX-License-Identifier: Apache-2.0
"""The house: what lives where, and what may import what.

A scenario flows one way, with values in between::

    corpus/*/*.scn -parse-> Scenario --+--> vm.executor.run --> Trace (N0 E1 N1 E2 ...)   real KVM
         ^              mutate (fuzz/) |                          |
         |                             |                          v
         +-------- finding <-- Divergence <-- compare <-- model.replay(trace, level)

`Scenario`, `Trace`, `Divergence` and `Finding` are the four nouns.
"""
