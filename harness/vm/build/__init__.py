# SPDX-License-Identifier: Apache-2.0
"""Fetch a target's kernel package and compile the programs that it boots; check this machine's tools (doctor)."""
