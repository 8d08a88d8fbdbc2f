# SPDX-License-Identifier: Apache-2.0
"""Store findings and runs in a database, and memory dumps in files; read findings with their explanations.

Imports ``generate`` and every room of ``harness``.  ``database`` is the only user of SQLAlchemy, ``findings`` and
``runs`` store and read rows, ``kept_findings`` reads them for reports.  A row that cannot be read becomes an
``Unreadable``; the other rows are still read.  A new column is a migration in ``database``.
"""
