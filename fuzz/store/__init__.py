# SPDX-License-Identifier: Apache-2.0
"""Keep findings and runs in a database, and memory dumps beside it; read them again with their explanation.

Imports ``generate`` and every room of ``harness``.  ``database`` is the only user of SQLAlchemy, ``findings`` and
``runs`` are what is stored, ``kept_findings`` reads them as reports need them.  A row that cannot be read is an
``Unreadable``, and the others are read.  A new column is a migration in ``database``.
"""
