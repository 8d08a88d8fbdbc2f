# SPDX-License-Identifier: Apache-2.0
"""Compile what a target boots: agent, recording module, initramfs; check what a machine has for that (doctor)."""
