# SPDX-License-Identifier: Apache-2.0
"""Run a campaign: a parent with worker processes, what guides them, what they count, and the summary.

A worker gets its job as one value (:class:`fuzz.campaign.worker_job.WorkerJob`).  Nothing here knows the options of a
command, and nothing here prints.
"""
