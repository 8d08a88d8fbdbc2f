# SPDX-License-Identifier: Apache-2.0
"""Work on corpora: read, survey and minimise them, count exercised relations, and extract seeds from recordings.

Imports ``campaign`` and rooms before it.  ``files`` reads scenarios, ``coverage_survey`` measures their coverage,
``minimise`` selects scenarios with the same coverage, ``exercise`` counts which relation compared which step,
``extract_seeds`` makes scenarios from a recording.
"""
