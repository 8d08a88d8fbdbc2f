# SPDX-License-Identifier: Apache-2.0
"""Turn divergences into findings: check a trace by all relations, explain what is known, classify the rest.

``check`` checks a scenario's trace, ``check_recording`` a recording, ``compare_releases`` two traces of one scenario.
``known_divergences`` and ``intended_changes`` read the catalogues in corpus/known, ``explanations`` has the rules that
they name, ``regressions`` reads the kept findings, ``attribution`` and ``gic_attribution`` decide by their rules
(``relations.errata``, ``relations.gic_errata``) whether one is the cause, ``verdict`` gives a finding its verdict.
Imports ``relations`` and rooms before it.
"""
