# SPDX-License-Identifier: Apache-2.0
"""Measure speed: exits a second bare and checked, stage by stage, and draw it."""
