# SPDX-License-Identifier: Apache-2.0
"""Boot a prepared target: turn a config and its built files into an executor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType

from harness.errors import Remains, SetupError
from harness.trace.decode import ContextLayout
from harness.vm.alarms import Alarm, find_alarms
from harness.vm.build.prepare import PreparedTarget
from harness.vm.cache import Cache
from harness.vm.clone import KIND, Clones, started, template_key
from harness.vm.config import MachineConfig, Mode
from harness.vm.debian.versions import linux_version
from harness.vm.executor import Executor
from harness.vm.plugins.hyp_copy import HypCopy, prepare_hyp
from harness.vm.plugins.plugin import Map, Plugin
from harness.vm.qemu import Qemu
from harness.vm.qemu_command import MIB, Machine
from harness.vm.template import Template
from harness.vm.tools import Progress, quiet

# Documentation/admin-guide/kernel-parameters.txt, kvm-arm.mode: VHE has no value; it is the default on a CPU with VHE.
_MODE_ARGS: Mapping[Mode, tuple[str, ...]] = MappingProxyType(
    {Mode.NVHE: ("kvm-arm.mode=nvhe",), Mode.VHE: (), Mode.PROTECTED: ("kvm-arm.mode=protected",)}
)


# Since 6.10 KVM does not trap WFI and WFE of a guest that is alone on its CPU; these options
# (Documentation/admin-guide/kernel-parameters.txt) restore the traps of older releases, which do not have the options.
_ALWAYS_TRAP_WFX = ("kvm-arm.wfi_trap_policy=trap", "kvm-arm.wfe_trap_policy=trap")
_TRAP_POLICY_SINCE = (6, 10)


def _release_args(prepared: PreparedTarget) -> tuple[str, ...]:
    return _ALWAYS_TRAP_WFX if linux_version(prepared.kernel_release) >= _TRAP_POLICY_SINCE else ()


_PROTECTED_VMS_SINCE = (7, 1)


def has_protected_vms(mode: Mode, release: str) -> bool:
    """Whether a kernel in a mode accepts KVM_VM_TYPE_ARM_PROTECTED; up to 7.0 KVM_CREATE_VM rejects it.

    Source: docs/spec/kvm.md section 5.
    """
    return mode is Mode.PROTECTED and linux_version(release) >= _PROTECTED_VMS_SINCE


def machine_of(config: MachineConfig, prepared: PreparedTarget, *, deterministic: bool = False) -> Machine:
    """Return a target's machine."""
    return Machine(
        name=config.name,
        kernel=prepared.kernel,
        initrd=prepared.initrd,
        cpu=config.cpu,
        machine=config.machine_argument,
        memory_mib=config.memory_mib,
        shared_mib=config.shared_mib,
        cmdline=" ".join(dict.fromkeys((*_MODE_ARGS[config.mode], *_release_args(prepared), *config.cmdline))),
        qemu=prepared.qemu,
        deterministic=deterministic,
    )


def hyp_copy_of(config: MachineConfig, prepared: PreparedTarget, progress: Progress = quiet) -> HypCopy:
    """Return what records a target's hyp vCPUs.

    SetupError: it has none, or the plugin cannot be built.
    """
    if config.mode is not Mode.PROTECTED:
        raise SetupError(f"{config.name} does not run in protected mode: its hypervisor has no vCPUs of its own")
    return prepare_hyp(prepared, machine_of(config, prepared).linux_mib * MIB, progress)


def layout_of(prepared: PreparedTarget) -> ContextLayout:
    """Return the register layout of the target's kernel, as the build found it; SetupError if the file is damaged."""
    try:
        return ContextLayout.from_json(json.loads(prepared.layout.read_text()))
    except (OSError, ValueError) as error:
        raise SetupError(f"{prepared.layout}: {error}; remove its directory, it will be built again") from error


def boot_alarms(config: MachineConfig, prepared: PreparedTarget, cache: Cache) -> tuple[Alarm, ...] | None:
    """Return the alarms of a target's kernel during its template's boot; None: no template yet."""
    entry = cache.find(KIND, template_key(machine_of(config, prepared), prepared.kernel_sha256))
    return None if entry is None else find_alarms(Template(entry.path).console)


@contextmanager
def boot(
    config: MachineConfig,
    prepared: PreparedTarget,
    *,
    timeout: float = 10.0,
    post_mortem: Callable[[Qemu], Remains] | None = None,
    plugin: Plugin[Map] | None = None,
    hyp_copy: HypCopy | None = None,
    clones: Clones | None = None,
    deterministic: bool = False,
) -> Iterator[Executor]:
    """Boot a target, or clone a booted one, and yield its executor; the machine is ended with the block.

    ``timeout`` in seconds bounds each scenario.  VmLost, AgentProtocolError: see :mod:`harness.vm.executor`; with
    ``post_mortem``, the state of a lost machine is read before its end.  ``plugin`` records the code of KVM that is
    executed (:mod:`harness.vm.plugins.kvm_coverage`), ``hyp_copy`` the hyp copy of each vCPU
    (:mod:`harness.vm.plugins.hyp_copy`).  A ``deterministic`` machine executes the same instructions after the same
    scenarios.  With ``clones`` it is a clone if possible; without, a cold boot.
    """
    layout, machine = layout_of(prepared), machine_of(config, prepared, deterministic=deterministic)
    template = None if clones is None else clones.template(machine, prepared.kernel_sha256)

    with ExitStack() as stack:
        beside = None if hyp_copy is None else stack.enter_context(hyp_copy.plugin())
        plugins = [each for each in (plugin, beside) if each is not None]

        def make(saved: Template | None) -> Qemu:
            return Qemu(machine, post_mortem=post_mortem, plugins=plugins, template=saved)

        qemu = stack.enter_context(started(make, template, clones))
        # In protected mode the registers in the host's memory need not be those that EL2 loads (from 7.3 on).
        by_probe, hyp = config.mode is not Mode.PROTECTED, None if beside is None else beside.map
        early = find_alarms(qemu.boot_text())
        yield Executor(qemu, layout, timeout=timeout, by_probe=by_probe, hyp=hyp, boot_alarms=early)
