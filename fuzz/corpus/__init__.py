# SPDX-License-Identifier: Apache-2.0
"""Work on corpora: read, survey and minimise them, count what they exercise, and extract seeds of recordings."""
