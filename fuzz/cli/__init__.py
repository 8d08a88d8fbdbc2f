# SPDX-License-Identifier: Apache-2.0
"""The commands, one file each: declare options, call another room, print, return an exit status.

A new command is a function in a file here and a row in :mod:`fuzz.cli.tree`::

    @declare("name", "What it does.", EPILOG)
    @paths()
    @flag("--slow", help="take time")
    @json_flag
    def command(args: Args) -> int:
        from fuzz.triage.minimise import minimise  # imported here, so that help and completion are fast

An option is a decorator; their order is that of the help.  Use one of :mod:`fuzz.cli.options` if several commands share
the option, else ``option``, ``flag`` or ``number``.  Its value is ``args.name``.  Older spellings are ``aliases``.
``declare`` adds ``--quiet`` and ``--verbose``.  ``--json`` prints with :func:`fuzz.cli.output.print_json`.  Commands
share :mod:`fuzz.cli.declare`, :mod:`fuzz.cli.options`, :mod:`fuzz.cli.output` and :mod:`fuzz.cli.progress`, and do not
import each other.  :mod:`fuzz.cli.main` converts every error to one line and an exit status.
"""
