# SPDX-License-Identifier: Apache-2.0
"""Boot targets, run scenarios there and check what they recorded: the one place in ``fuzz`` that boots a machine.

:class:`fuzz.targets.target_set.TargetSet` is one target or two.  :func:`fuzz.targets.target_set.open_targets` makes it
from :class:`fuzz.targets.options.TargetOptions`.  A new way to make machines is a field of the options and of
:class:`fuzz.targets.prepared_side.MachineOptions`.
"""
