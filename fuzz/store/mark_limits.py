# SPDX-License-Identifier: Apache-2.0
"""What may be said of a finding.  The command line reads it before a database is opened."""

from __future__ import annotations

STATUSES = ("new", "confirmed", "reported", "fixed", "wont-fix", "tools-mistake")
MAX_NOTE = 4000
"""So many characters of a note are kept."""
