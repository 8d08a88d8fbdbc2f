# SPDX-License-Identifier: Apache-2.0
"""Export one finding as files: a scenario, a C program, and the state of the lost target for a crash."""

from __future__ import annotations

from pathlib import Path

from harness.errors import InputError
from harness.report.export import c_program, crash_text, earlier, reproducer
from harness.report.finding_data import Story


def export_finding(story: Story, directory: Path) -> tuple[Path, ...]:
    """Write the files; return their paths.  InputError: the finding has no scenario.  OSError: cannot be written."""
    text = reproducer(story)
    if text is None:
        raise InputError(story.id, None, "there is no scenario: the target was lost while it booted")
    directory.mkdir(parents=True, exist_ok=True)
    files = {**earlier(story), ".scn": text, ".c": c_program(story, f"{story.id}.c"), ".txt": crash_text(story)}
    paths: list[Path] = []
    for suffix, content in files.items():
        if content is not None:
            paths.append(directory / f"{story.id}{suffix}")
            paths[-1].write_text(content, encoding="utf-8")
    return tuple(paths)
