# SPDX-License-Identifier: Apache-2.0
"""Boot one target or two, run a scenario, check it: the one place that does all three."""
