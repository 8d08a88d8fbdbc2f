# SPDX-License-Identifier: Apache-2.0
"""Alembic's scripts, one a version: ``env`` runs them in the transaction of :mod:`fuzz.store.migrate`."""
