# SPDX-License-Identifier: Apache-2.0
"""Measure: exits a second, what a machine costs, and whether guidance by the code of KVM finds more."""
