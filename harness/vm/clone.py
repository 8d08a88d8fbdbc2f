# SPDX-License-Identifier: Apache-2.0
"""Start machines as copy-on-write clones of a template, which is booted and saved once for each configuration.

A clone takes about a tenth of the time of a cold boot (`shadowfuzz bench`); a template is 60 MB on disk.  All clones
start in the state in which the template was saved: what depends on the course of a boot is equal in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError, VmLost
from harness.vm.cache import Cache, hash_inputs
from harness.vm.qemu import Qemu
from harness.vm.qemu_command import Files, Machine, command_line
from harness.vm.template import Template
from harness.vm.tools import Progress, quiet, require_tool

KIND = "template"
RECIPE = "2"
"""Part of the key: raise it when a template is saved or loaded in another way."""
KEPT = 12
"""Number of templates that are kept, the last used."""
ROOM = 256 << 20
"""Bytes for one template (measured: 60 to 80 MB)."""
NO_FILES = Files(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Clones:
    """The store of templates; ``progress`` receives a line for each template that is made or cannot be made."""

    cache: Cache
    progress: Progress = quiet

    def template(self, machine: Machine, image: str) -> Template | None:
        """Return the template of a machine, made if it is missing; ``image`` is the hash of the kernel's image.

        None: it cannot be made (``progress`` has the reason); the machine must be booted then.
        """
        key = template_key(machine, image)
        try:
            entry = self.cache.get(KIND, key, lambda work: self._make(machine, work), self.progress, ROOM, keep=KEPT)
        except (SetupError, VmLost) as error:
            self.progress(f"{machine.name}: no template, so it is booted in full: {error}")
            return None
        return Template(entry.path)

    def discard(self, template: Template) -> None:
        """Remove a template that does not start; machines that run from it keep its files."""
        self.cache.remove(template.path)

    def _make(self, machine: Machine, work: Path) -> Mapping[str, object]:
        self.progress(f"{machine.name}: booting a template, once for this kernel, image, QEMU and configuration")
        with Qemu(machine) as qemu:
            qemu.save(work)
        return {"machine": machine.name}


def template_key(machine: Machine, image: str) -> str:
    """Return the key of a machine's template: everything that determines its content.

    The QEMU program by its file (another version is another file), its whole command line, in which the initramfs is
    named by the hash of its inputs, and the kernel's content.
    """
    program = Path(require_tool(machine.qemu[0], "qemu-system-arm")).resolve()
    state = program.stat()
    initrd = machine.initrd.stat()
    return hash_inputs(
        [
            RECIPE,
            image,
            f"{program} {state.st_size} {state.st_mtime_ns}",
            f"{initrd.st_size} {initrd.st_mtime_ns}",
            *command_line(machine, NO_FILES),
        ]
    )


Make = Callable[[Template | None], Qemu]
"""Make a machine: a clone of a template, or one that boots."""


@contextmanager
def started(make: Make, template: Template | None, clones: Clones | None) -> Iterator[Qemu]:
    """Start a machine, as a clone if there is a template, and end it with the block.

    A clone that does not start is booted in full, and its template discarded.  VmLost: as :class:`Qemu`.
    """
    with ExitStack() as stack:
        qemu: Qemu | None = None
        if template is not None and clones is not None:
            try:
                qemu = stack.enter_context(make(template))
            except (VmLost, SetupError) as error:
                clones.progress(f"the clone did not start, so the machine is booted in full: {error}")
                clones.discard(template)
        yield qemu if qemu is not None else stack.enter_context(make(None))
