# SPDX-License-Identifier: Apache-2.0
"""What of KVM handles the exit that a finding is about, with its source line where debug information is there."""

from __future__ import annotations

import os
from pathlib import Path

from harness.coverage.kvm_handlers import Handled, handler_of
from harness.errors import InputError, SetupError
from harness.report.finding_data import Story
from harness.vm.cache import Cache, default_root
from harness.vm.kernels.dwarf import read_function_line

EXIT_CLASS = 2
"""Where a divergence's signature has the class of the exit."""


def handler_in_words(story: Story, vmlinux: Path | None = None) -> str:
    """Return the function of KVM that handles a finding's exit, in words; empty if that is not known.

    ``vmlinux`` is the finding's kernel with debug information; without it, that of its build directory is asked, if
    it is still the kernel's.  InputError, SetupError: the given file has no line for it.
    """
    finding = story.kept.finding
    handled = handler_of(finding.signature[EXIT_CLASS]) if finding.kind == "divergence" else None
    if handled is None:
        return ""
    if vmlinux is not None:
        return handled.text(_place(story, handled, vmlinux))
    tree = None if story.kept.config is None else story.kept.config.kernel_tree
    if tree is None:
        return handled.text()
    try:
        return handled.text(_place(story, handled, tree / "vmlinux"))
    except (InputError, SetupError):  # built again since, or without debug information: no line was asked for
        return handled.text()


def _place(story: Story, handled: Handled, vmlinux: Path) -> str:
    """Return ``FILE:LINE``, empty if the kernel has no such function."""
    subject = story.kept.finding.subject
    image = _image(subject.kernel_sha256)
    if image is None:
        raise SetupError(f"the image of Linux {subject.kernel_release}, which {story.id} was seen on, is not here")
    found = read_function_line(vmlinux, image, handled.function)
    return "" if found is None else f"{found[0]}:{found[1]}"


def _image(sha256: str) -> Path | None:
    """Return the image with a hash, of those in the cache."""
    cache = Cache(default_root(os.environ))
    for kind in ("tree", "image", "kernel"):
        for entry in cache.entries(kind):
            if entry.facts.get("sha256") == sha256:
                return entry.path / "Image"
    return None
