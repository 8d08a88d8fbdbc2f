# SPDX-License-Identifier: Apache-2.0
"""Generate and mutate valid scenarios; the result is a function of the random number generator that is passed in.

A new kind of step is a row of ``harness.scenario.steps`` and a weight in :mod:`fuzz.generate.steps`.
"""
