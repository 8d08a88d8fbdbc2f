# SPDX-License-Identifier: Apache-2.0
"""Entries of a changelog between two versions."""

from __future__ import annotations

import pytest

from harness.vm.debian.changelog import notes, upstream

CHANGELOG = """\
linux-signed-arm64 (7.2.6+1) unstable; urgency=medium

  * New upstream stable update:
    - [arm64] KVM: arm64: Fix the sign of
      MMIO loads
    - KVM: x86: Something else
    - arm64: dts: nothing of it

 -- Maintainer <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000

linux (7.2~rc1-1~exp1) experimental; urgency=medium

  * New upstream release candidate

 -- Maintainer <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000

linux (7.1.13-1) unstable; urgency=medium

  * [arm64] KVM: arm64: before it all

 -- Maintainer <a@example.org>  Mon, 01 Jan 2024 00:00:00 +0000
"""


def test_a_changelog_between_two_versions() -> None:
    found = [(note.version, note.text) for note in notes(CHANGELOG, "7.1.13-1~bpo13+1", "7.2.6-1~bpo13+1")]
    assert found == [("7.2.6-1", "[arm64] KVM: arm64: Fix the sign of MMIO loads")]
    assert upstream(CHANGELOG, "7.1.13-1", "7.2.6-1") == ("7.2~rc1-1~exp1",)
    assert [note.version for note in notes(CHANGELOG, "7.1.1-1", "7.1.13-1")] == ["7.1.13-1"]


def test_malformed_lines_are_ignored_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    broken = CHANGELOG.replace("    - KVM: x86", "not indented\n    - KVM: x86")
    found = [note.text for note in notes("no changelog\n" + broken, "7.1.13-1", "7.2.6-1")]
    assert found == ["[arm64] KVM: arm64: Fix the sign of MMIO loads"]
    assert caplog.records == []
