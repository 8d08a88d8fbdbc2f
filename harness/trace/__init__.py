# SPDX-License-Identifier: Apache-2.0
"""Read what was recorded: events, the files that hold them, and the rounds and runs that a trace is cut into.

A *round* is what the host does from an exit to the next entry of the same vCPU; a *run* is what the guest does from
an entry to its exit.  ``indexed`` cuts a scenario's trace once for all relations; ``recorded_rounds`` does it for a
recording of a program, record by record.  Imports ``scenario`` and ``arch``.  ``rounds`` decides whether a PSCI CPU_ON
started a vCPU.  The meaning of KVM's records (pending work, debug state, PSCI power state) belongs here; comparisons do
not.
"""
