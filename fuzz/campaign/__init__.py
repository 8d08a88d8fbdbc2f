# SPDX-License-Identifier: Apache-2.0
"""Run a campaign: a parent with worker processes, their guidance by coverage, their counters, and the summary.

A worker gets its job as one value (:class:`fuzz.campaign.worker_job.WorkerJob`).  Nothing here knows the options of a
command, and nothing here prints.  Imports ``targets`` and rooms before it.  ``parent`` starts and watches workers,
``worker_process`` is one, ``worker`` processes an input: ``confirm_divergences``, ``confirm_alarms`` and ``failures``
decide what of it becomes a finding.  ``guidance`` chooses the coverage that guides.  A new count is a group of
``counters_file`` that ``summary`` shows.
"""
