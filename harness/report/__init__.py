# SPDX-License-Identifier: Apache-2.0
"""Values in, text out: terminal, HTML, JSON, SARIF, Markdown, C programs.  Decides nothing, runs nothing.

Imports every room before it.  The words for a relation are in ``relations.registry``, those for verdicts in
``glossary``.
"""
