# SPDX-License-Identifier: Apache-2.0
"""Make scenarios: the mutator that atheris calls, and idioms, step by step.  Pure, given a random generator.

A new idiom (steps that only make sense together) is a function and a row of ``idioms``.
"""
