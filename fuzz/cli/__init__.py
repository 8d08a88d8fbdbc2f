# SPDX-License-Identifier: Apache-2.0
"""One file a command: its arguments, a call, what it prints, its exit status.  The only room that prints.

``main`` lists the commands, ``options`` has arguments that several share.  Commands do not import each other.
"""
