# SPDX-License-Identifier: Apache-2.0
"""From scenarios and findings to answers: replay, minimise, confirm, bisect, compare releases and emulators, report."""
