# SPDX-License-Identifier: Apache-2.0
"""Boot targets, run scenarios on them and check the traces; only this room of ``fuzz`` boots machines.

:class:`fuzz.targets.target_set.TargetSet` is one target or two.  :func:`fuzz.targets.target_set.open_targets` makes it
from :class:`fuzz.targets.options.TargetOptions`.  A new kind of machine is a field of the options and of
:class:`fuzz.targets.prepared_side.MachineOptions`.
"""
