# SPDX-License-Identifier: Apache-2.0
"""Keep findings, runs and memory dumps, in a database by SQLAlchemy and in directories beside it.

``findings`` is what a campaign writes and every command reads; ``kept_findings`` are those of the corpus.
"""
