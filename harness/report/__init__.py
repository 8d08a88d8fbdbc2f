# SPDX-License-Identifier: Apache-2.0
"""Render values as text: terminal, HTML, JSON, SARIF, Markdown, C programs.  Decides nothing, runs nothing.

Imports every room before it.  ``relations.registry`` describes the relations, ``glossary`` the verdicts.
"""
