# SPDX-License-Identifier: Apache-2.0
"""The logic of commands on findings: minimise, confirm, bisect, compare releases, run the matrix, write the report.

Returns values; ``cli`` prints them.
"""
