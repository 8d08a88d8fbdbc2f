# SPDX-License-Identifier: Apache-2.0
"""One file a command: it declares its options, calls a room above, prints, and returns an exit status.

A new command is a file here with ``add_parser``, and a row in :mod:`fuzz.cli.main`.  Commands share
:mod:`fuzz.cli.options`, :mod:`fuzz.cli.output` and :mod:`fuzz.cli.progress`, and do not import each other.
"""
