# SPDX-License-Identifier: Apache-2.0
"""What was recorded: events, the files that hold them, and how a trace is cut up.

A *round* is one turn of the host, from an exit to the next entry of the same vCPU; a *run* is what the guest does from
an entry to its exit.  ``indexed`` cuts a scenario's trace once for all relations; ``recorded_rounds`` does it for a
recording of a program, record by record.  Imports ``scenario`` and ``arch``.  ``rounds`` decides whether a PSCI CPU_ON
started a vCPU.  Facts about what KVM's records mean
(pending work, debug state, PSCI power state) live here; nothing here judges.
"""
