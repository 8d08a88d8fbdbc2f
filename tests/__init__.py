# SPDX-License-Identifier: Apache-2.0
"""Tests; how long one takes depends on what else the machine does, so none has a deadline."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
