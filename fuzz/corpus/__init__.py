# SPDX-License-Identifier: Apache-2.0
"""Seeds and kept scenarios: read them, extract them from recordings, measure and minimise what they cover."""
