# SPDX-License-Identifier: Apache-2.0
"""Limits of a finding's mark: statuses, length of a note.  The command line checks them before it opens a database."""

from __future__ import annotations

STATUSES = ("new", "confirmed", "reported", "fixed", "wont-fix", "tools-mistake")
MAX_NOTE = 4000
"""Maximum length of a note in characters."""
