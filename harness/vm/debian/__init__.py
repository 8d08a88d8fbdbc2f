# SPDX-License-Identifier: Apache-2.0
"""Debian's packages and archives: fetch by apt with a private state, compare versions, read changelogs."""
