# SPDX-License-Identifier: Apache-2.0
"""Work on corpora: read, survey and minimise them, count what they exercise, and extract seeds of recordings.

Imports ``campaign`` and rooms before it.  ``files`` reads scenarios, ``coverage_survey`` runs them for what they reach,
``minimise`` keeps those that are needed for it, ``exercise`` counts which relation judged which step,
``extract_seeds`` makes scenarios of a recording.
"""
