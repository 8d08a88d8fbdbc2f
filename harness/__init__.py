# SPDX-License-Identifier: Apache-2.0
"""Record what KVM does, compare it with a model and with the architecture, report what differs.

A scenario flows one way, with values in between::

    scenario --> vm: Executor.run --> Trace (entry, exit, host action, ...)     real KVM
                                        |
                     trace: index_trace |  rounds of the host, runs of the guest
                                        v
      guest: predict_run, model: predict      what should have happened
                                        |
                                        v
                     relations: compare --> Divergence --> findings: explain, judge --> report

Ground files, which every room may import: ``errors``, ``layout`` (the guest's memory map and its vCPUs), ``protocol``
(what host and agent exchange), ``jsonfile``, ``minimiser``, ``exit_status``,
``input_file``, ``output_file``.  A room imports only from rooms to its
left in this list::

    arch < {gic, scenario} < trace < {guest, model, vm} < {lemma, relations} < findings < coverage < report

``tests/project/test_imports.py`` enforces it; docs/architecture.md says how to add things.
"""
