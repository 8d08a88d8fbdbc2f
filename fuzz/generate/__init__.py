# SPDX-License-Identifier: Apache-2.0
"""Make scenarios: mutate and generate valid ones, a function of the random numbers that are passed in.

A new kind of step is a row of ``harness.scenario.steps`` and a weight in :mod:`fuzz.generate.steps`.
"""
