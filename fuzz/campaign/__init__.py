# SPDX-License-Identifier: Apache-2.0
"""A campaign: the parent starts workers, each a process in which atheris drives one target.

``worker_process`` is that process, ``worker`` what it does with one input, ``guidance`` what coverage guides it,
``summary`` what the parent reports at the end.  ``lemma_campaign`` is the campaign of levels of the model, without VM.
"""
