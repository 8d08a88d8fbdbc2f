# SPDX-License-Identifier: Apache-2.0
"""From scenarios and findings to answers: replay, minimise, confirm, bisect, compare releases and emulators, report.

One module a question, each named as its command; it takes a frozen plan and returns values, and ``cli`` prints them.
Imports every other room but ``cli``.  A module ``..._run`` goes through many targets, its neighbour decides.
"""
