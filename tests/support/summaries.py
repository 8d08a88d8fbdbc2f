# SPDX-License-Identifier: Apache-2.0
"""Summaries of fake campaigns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fuzz.campaign.campaign_results import CampaignOptions
from fuzz.campaign.parent import Outcome
from fuzz.campaign.summary import Summary, summarise
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from harness.findings.regressions import Regression
from tests.support.fake_worker import SUBJECT


def summary_of(out: Path, outcome: Outcome, kept: Sequence[Regression] = (), *, accept_kept: bool = False) -> Summary:
    """Return the summary of a campaign that began a second ago."""
    (out / "corpus").mkdir(exist_ok=True)
    url = default_url(out)
    Store(Database(url), FINDINGS).export(out / FINDINGS)
    began = time.monotonic() - 1
    asked = CampaignOptions((SUBJECT,), ("fake",), Path("an image"), 7, 2, out, began, url, accept_kept=accept_kept)
    return summarise(asked, outcome, kept)
