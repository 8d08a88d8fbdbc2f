# SPDX-License-Identifier: Apache-2.0
"""Fetch a target's kernel package and compile what it boots; check what a machine has for that (doctor)."""
