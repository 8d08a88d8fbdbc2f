# SPDX-License-Identifier: Apache-2.0
"""KVM's function of a finding, with its source line from a kernel that is compiled here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.store.kept_findings import stories
from fuzz.triage.handover import mail, story_handover
from fuzz.triage.source_line import handler_in_words
from harness.errors import InputError, SetupError
from harness.report.finding_data import Story
from harness.vm.cache import MANIFEST
from harness.vm.config import load_config
from tests.support.kept import filled
from tests.unit.harness.vm.kernels.test_dwarf import build

SOURCE = """\
__attribute__((section(".head.text"))) void head(void) {}

int kvm_handle_guest_abort(int x)
{
	return x ? 1 : 2;
}
"""


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Story:
    """A finding at a data abort, of a kernel built in ``tmp_path/tree`` whose image the cache has."""
    vmlinux, image = build(tmp_path / "tree", SOURCE)
    data = image.read_bytes()
    entry = tmp_path / "cache" / "shadowfuzz" / "tree-0"
    entry.mkdir(parents=True)
    (entry / "Image").write_bytes(data)
    facts, files = {"sha256": hashlib.sha256(data).hexdigest()}, {"Image": len(data)}
    (entry / MANIFEST).write_text(json.dumps({"facts": facts, "files": files}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = next(each for each in stories(filled(tmp_path / "campaign")) if each.divergence is not None)
    finding = found.kept.finding
    subject = replace(finding.subject, kernel_sha256=str(facts["sha256"]))
    signature = (*finding.signature[:2], "DABT_LOW", *finding.signature[3:])
    config = replace(load_config("kvm-nvhe"), kernel_tree=vmlinux.parent)
    changed = replace(finding, subject=subject, signature=signature)
    return replace(found, kept=replace(found.kept, finding=changed, config=config))


LISTED = "by arm_exit_handlers in arch/arm64/kvm/handle_exit.c"


def test_a_build_directory_tells_the_line(story: Story) -> None:
    words = handler_in_words(story)
    assert words == f"kvm_handle_guest_abort (arch/arm64/kvm/demo.c:3), {LISTED}"
    text = " ".join(mail(story_handover(story, words), "").split())
    assert f"In KVM: {words}." in text


def test_a_kernel_that_was_built_again_tells_none(story: Story, tmp_path: Path) -> None:
    assert story.kept.config is not None and story.kept.config.kernel_tree is not None
    again, _ = build(tmp_path / "again", SOURCE.replace("1 : 2", "1 : 3"))
    again.rename(story.kept.config.kernel_tree / "vmlinux")
    assert handler_in_words(story) == f"kvm_handle_guest_abort, {LISTED}"
    with pytest.raises(InputError, match="is of another kernel"):
        handler_in_words(story, story.kept.config.kernel_tree / "vmlinux")


def test_a_line_that_was_asked_for_needs_the_image(
    story: Story, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    assert handler_in_words(story) == f"kvm_handle_guest_abort, {LISTED}"
    with pytest.raises(SetupError, match="is not here"):
        handler_in_words(story, tmp_path / "tree" / "vmlinux")


def test_without_a_handler_there_is_no_line(story: Story) -> None:
    finding = replace(story.kept.finding, signature=("host", "pc", "IRQ", ""))
    assert handler_in_words(replace(story, kept=replace(story.kept, finding=finding))) == ""
