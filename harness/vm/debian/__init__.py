# SPDX-License-Identifier: Apache-2.0
"""Use Debian's packages and archives: fetch by apt with a private state, compare versions, read changelogs."""
