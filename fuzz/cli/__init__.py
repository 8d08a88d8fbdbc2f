# SPDX-License-Identifier: Apache-2.0
"""One file a command: it declares its options, calls a room above, prints, and returns an exit status.

A new command is a function in a file here and a row in :mod:`fuzz.cli.tree`::

    @declare("name", "What it does.", EPILOG)
    @paths()
    @flag("--slow", help="take time")
    @json_flag
    def command(args: Args) -> int:
        from fuzz.triage.minimise import minimise  # inside: help and completion must not wait for it

An option is a decorator, listed in the order of the help: one of :mod:`fuzz.cli.options`, where several commands share
it, else ``option``, ``flag`` or ``number``.  Its value is ``args.name``.  Older spellings are ``aliases``.  ``--quiet``
and ``--verbose`` are there without a line.  ``--json`` prints with :func:`fuzz.cli.output.print_json`.  Commands share
:mod:`fuzz.cli.declare`, :mod:`fuzz.cli.options`, :mod:`fuzz.cli.output` and :mod:`fuzz.cli.progress`, and do not import
each other.  :mod:`fuzz.cli.main` makes every error a line and an exit status.
"""
