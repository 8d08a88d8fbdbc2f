# SPDX-License-Identifier: Apache-2.0
"""Run a campaign: a parent with worker processes, what guides them, what they count, and the summary.

A worker gets its job as one value (:class:`fuzz.campaign.worker_job.WorkerJob`).  Nothing here knows the options of a
command, and nothing here prints.  Imports ``targets`` and rooms before it.  ``parent`` starts and watches workers,
``worker_process`` is one, ``worker`` what it does with an input, ``guidance`` what coverage guides it.  A new count is
a group of ``counters_file``, and shown by ``summary``.
"""
