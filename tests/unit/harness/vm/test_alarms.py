# SPDX-License-Identifier: Apache-2.0
"""Alarms in console texts: kind and function, and no text of a console does harm."""

from __future__ import annotations

import random
import time

import pytest

from harness.vm.alarms import KINDS, MAX_ALARMS, MAX_LINE, MAX_LINES, Alarm, find_alarms, has_hint, once_each

# Recorded: kvm-protected@7.2.6, an ioctl that no VM has (x0 to x28 cut out).
NEW_WARN = """\
tainted 12288
[    3.350363] WARNING: arch/arm64/include/asm/kvm_pkvm.h:66 at kvm_arch_vm_ioctl+0x144/0x568, CPU#0: unk/89
[    3.351572] Modules linked in: probe(OE)
[    3.353130] CPU: 0 UID: 0 PID: 89 Comm: unk Tainted: G           OE       7.2.6+deb13-cloud-arm64 #1 PREEMPTLAZY
[    3.353652] Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE
[    3.353792] Hardware name: linux,dummy-virt (DT)
[    3.354154] pstate: 60000005 (nZCv daif -PAN -UAO -TCO -DIT -SSBS BTYPE=--)
[    3.354347] pc : kvm_arch_vm_ioctl+0x144/0x568
[    3.354523] lr : kvm_vm_ioctl+0xbcc/0x1818
[    3.354764] x29: ffff800082cd3840 x28: ffff000004614a00 x27: 0000000000000000
[    3.356821] Call trace:
[    3.357079]  kvm_arch_vm_ioctl+0x144/0x568 (P)
[    3.357316]  kvm_vm_ioctl+0xbcc/0x1818
[    3.357440]  __arm64_sys_ioctl+0xb4/0x120
[    3.358352] ---[ end trace 0000000000000000 ]---
unknown ioctl: -1, errno 22
"""
# The others are written from the sources that KINDS names.
OLD_WARN = """\
[   12.100001] ------------[ cut here ]------------
[   12.100002] WARNING: CPU: 0 PID: 71 at arch/arm64/kvm/vgic/vgic-v3.c:88 vgic_v3_fold.isra.0+0x3c/0x120
[   12.100003] Modules linked in: probe(OE)
[   12.100004] pc : vgic_v3_fold.isra.0+0x3c/0x120
[   12.100005] Call trace:
[   12.100006]  vgic_v3_fold.isra.0+0x3c/0x120
[   12.100007] ---[ end trace 0000000000000000 ]---
"""
REFCOUNT = """\
[   12.200001] ------------[ cut here ]------------
[   12.200002] refcount_t: underflow; use-after-free.
[   12.200003] WARNING: CPU: 0 PID: 71 at lib/refcount.c:28 refcount_warn_saturate+0xf4/0x148
[   12.200004] pc : refcount_warn_saturate+0xf4/0x148
[   12.200005] lr : refcount_warn_saturate+0xf4/0x148
[   12.200006] Call trace:
[   12.200007]  refcount_warn_saturate+0xf4/0x148 (P)
[   12.200008]  kvm_put_kvm+0x2c/0x40 [kvm]
[   12.200009]  kvm_vm_release+0x18/0x30
[   12.200010] ---[ end trace 0000000000000000 ]---
"""
LIST = """\
[   12.300001] list_del corruption. prev->next should be ffff000004614a00, but was dead000000000122. (prev=...)
[   12.300002] WARNING: lib/list_debug.c:62 at __list_del_entry_valid_or_report+0xd8/0x110, CPU#0: agent/71
[   12.300003] Call trace:
[   12.300004]  __list_del_entry_valid_or_report+0xd8/0x110 (P)
[   12.300005]  vgic_flush_pending_lpis+0x60/0xc0
[   12.300006] ---[ end trace 0000000000000000 ]---
"""
LOCKDEP = """\
[   12.400001] ======================================================
[   12.400002] WARNING: possible circular locking dependency detected
[   12.400003] 7.2.6 #1 Tainted: G           OE
[   12.400004] ------------------------------------------------------
[   12.400005] agent/71 is trying to acquire lock:
[   12.400006] ffff800081c0a2a8 (&kvm->arch.config_lock){+.+.}-{4:4}, at: kvm_vgic_create+0x44/0x2a0
[   12.400007]
[   12.400008] but task is already holding lock:
[   12.400009] ffff800081c0a0f0 (&kvm->lock){+.+.}-{4:4}, at: kvm_vm_ioctl+0x90/0x1818
[   12.400010] stack backtrace:
[   12.400011]  dump_stack_lvl+0x78/0x90
"""
STALL = """\
[   40.000001] rcu: INFO: rcu_preempt self-detected stall on CPU
[   40.000002] rcu: \t0-....: (5249 ticks this GP) idle=1b8c/1/0x4000000000000002 softirq=771/771 fqs=2624
[   40.000003] pc : kvm_handle_mmio_return+0x10/0x80
"""
CONTEXT = """\
[   12.500001] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580
[   12.500002] in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 71, name: agent
[   12.500003] Preemption disabled at:
[   12.500004] [<ffff8000800b1e60>] kvm_arch_vcpu_load+0x28/0x180
[   12.500005] Call trace:
[   12.500006]  dump_backtrace+0x98/0xf8
[   12.500007]  show_stack+0x20/0x38
[   12.500008]  dump_stack_lvl+0x78/0x90
[   12.500009]  __might_resched+0x160/0x180
[   12.500010]  __might_sleep+0x50/0x80
[   12.500011]  mutex_lock+0x2c/0x70
[   12.500012]  kvm_reset_vcpu+0x24/0x200
"""
UBSAN = """\
[   12.600001] ------------[ cut here ]------------
[   12.600002] UBSAN: array-index-out-of-bounds in arch/arm64/kvm/sys_regs.c:101:12
[   12.600003] index 36 is out of range for type 'u64 [32]'
[   12.600004] CPU: 0 UID: 0 PID: 71 Comm: agent Not tainted 7.2.6 #1
[   12.600005] Call trace:
[   12.600006]  show_stack+0x20/0x38 (C)
[   12.600007]  dump_stack_lvl+0x78/0x90
[   12.600008]  ubsan_epilogue+0x10/0x48
[   12.600009]  __ubsan_handle_out_of_bounds+0xa8/0xd8
[   12.600010]  vcpu_write_sys_reg+0x180/0x2a0
[   12.600011] ---[ end trace ]---
"""
KASAN = """\
[   12.700001] ==================================================================
[   12.700002] BUG: KASAN: slab-use-after-free in vgic_put_irq+0x3c/0x130
[   12.700003] Read of size 4 at addr ffff000004614a60 by task agent/71
[   12.700004] Call trace:
[   12.700005]  kasan_report+0xa8/0x1f8
[   12.700006] ==================================================================
[   12.700007] Disabling lock debugging due to kernel taint
"""


@pytest.mark.parametrize(
    ("text", "kind", "function", "words"),
    [
        (NEW_WARN, "warn", "kvm_arch_vm_ioctl", "WARNING: arch/arm64/include/asm/kvm_pkvm.h:66 at"),
        (OLD_WARN, "warn", "vgic_v3_fold", "WARNING: CPU: 0 PID: 71 at arch/arm64/kvm/vgic/vgic-v3.c:88"),
        (REFCOUNT, "refcount", "kvm_put_kvm", "refcount_t: underflow; use-after-free."),
        (LIST, "list", "vgic_flush_pending_lpis", "list_del corruption. prev->next"),
        (LOCKDEP, "lockdep", "kvm_vgic_create", "WARNING: possible circular locking dependency detected"),
        (STALL, "stall", "", "rcu: INFO: rcu_preempt self-detected stall on CPU"),
        (CONTEXT, "context", "mutex_lock", "BUG: sleeping function called from invalid context"),
        (UBSAN, "ubsan", "vcpu_write_sys_reg", "UBSAN: array-index-out-of-bounds in arch/arm64/kvm/sys_regs.c"),
        ("[    9.000001] BUG: Bad page state in process agent  pfn:44610\n", "bug", "", "BUG: Bad page state"),
        ("[    9.000001] x: loading out-of-tree module taints kernel.\n", "taint", "", "x: loading out-of-tree"),
    ],
)
def test_kind_and_function(text: str, kind: str, function: str, words: str) -> None:
    (alarm,) = find_alarms(text)
    assert (alarm.kind, alarm.function) == (kind, function)
    assert alarm.words.startswith(words)
    assert find_alarms(text.encode()) == (alarm,) and has_hint(text.encode())
    assert alarm.words in alarm.splat and alarm.words in alarm.sentence


def test_a_report_ends_where_it_says_and_what_follows_is_another() -> None:
    one, other = find_alarms(KASAN)
    assert (one.kind, one.function, other.kind) == ("kasan", "vgic_put_irq", "taint")
    assert "taint" not in one.splat


def test_a_consequence_within_a_report_is_no_alarm_of_its_own() -> None:
    lines = NEW_WARN.splitlines(keepends=True)
    lines.insert(3, "[    3.351600] Disabling lock debugging due to kernel taint\n")
    (alarm,) = find_alarms("".join(lines))
    assert alarm.kind == "warn" and alarm.splat.endswith("]---")


def test_every_kind_is_its_own() -> None:
    texts = (NEW_WARN, REFCOUNT, LIST, LOCKDEP, STALL, CONTEXT, UBSAN, KASAN)
    found = [alarm.kind for text in texts for alarm in find_alarms(text)]
    assert {*found, "bug"} == {kind.name for kind in KINDS}


def test_all_of_a_text_in_its_order() -> None:
    kinds = ["warn", "warn", "refcount", "list", "ubsan"]
    found = find_alarms("".join((NEW_WARN, OLD_WARN, REFCOUNT, LIST, UBSAN)))
    assert [alarm.kind for alarm in found] == kinds


def test_text_of_a_warn() -> None:
    lines = OLD_WARN.splitlines(keepends=True)
    lines.insert(1, "[   12.100001] kvm: no list register is free\n")
    (alarm,) = find_alarms("".join(lines))
    assert alarm.words == "kvm: no list register is free" and alarm.kind == "warn" and alarm.function == "vgic_v3_fold"


def test_the_same_alarm_in_two_boots_has_one_signature() -> None:
    again = (
        NEW_WARN.replace("3.35", "17.80").replace("unk/89", "unk/4711").replace("0x144", "0x150").replace(":66", ":7")
    )
    one, other = find_alarms(NEW_WARN + again)
    assert one != other and one.signature == other.signature == ("warn", "kvm_arch_vm_ioctl")
    page = "[    9.000001] BUG: Bad page state in process agent  pfn:{}\n"
    first, second = find_alarms(page.format(44610) + page.format(9))
    assert first.signature == second.signature == ("bug", "BUG: Bad page state in process agent  pfn:N")
    assert [(count, alarm.words) for alarm, count in once_each((one, other, first)).values()] == [
        (2, one.words),
        (1, first.words),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "WARNING: a.c:1 at f+0x1/0x2, CPU#0: x/1\n",  # without the kernel's time stamp: a program printed it
        "[    3.353652] Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE\n",
        "[    9.000001] kvm: protected VMs are experimental and for development only, tainting kernel\n",  # intended
        "[    9.000001] probe: loading out-of-tree module taints kernel.\n",  # the recording module
        "[    3.35] kvm [71]: Unsupported guest CP15 access at: 80000000 [000003c5]\n",
        "[   12.100001] ------------[ cut here ]------------\n[   12.100002] kernel BUG at mm/slub.c:1!\n",
        "[   12.100001] Internal error: Oops: 0000000096000004 [#1]  SMP\n",  # the machine is lost: a crash
        "[   12.100001] nVHE hyp BUG at: [<ffff800080012345>] __kvm_nvhe_hyp_panic+0x1/0x2!\n",
    ],
)
def test_no_alarm(text: str) -> None:
    assert find_alarms(text) == () == find_alarms(text.encode())


def test_lines_of_user_space_in_between() -> None:
    mixed = NEW_WARN.replace("[    3.350363]", "unfinished li[    3.350363]").replace("\n", "\r\n")
    mixed = mixed.replace("[    3.354154]", "noise\n\x1b[1mnoise [    3.354154]")
    (alarm,) = find_alarms(mixed)
    assert (alarm.kind, alarm.function) == ("warn", "kvm_arch_vm_ioctl")
    assert "noise" not in alarm.splat and "\r" not in alarm.splat


def test_callers_may_be_printed() -> None:
    (alarm,) = find_alarms(NEW_WARN.replace("] ", "][   T89] "))
    assert alarm.signature == ("warn", "kvm_arch_vm_ioctl")


@pytest.mark.parametrize("length", range(0, len(NEW_WARN), 41))
def test_cut_off(length: int) -> None:
    """A truncated text gives at most one alarm, with the same function once its first line is complete."""
    found = find_alarms(NEW_WARN[:length])
    assert len(found) <= 1
    if length > NEW_WARN.index("Modules"):
        assert found[0].signature == ("warn", "kvm_arch_vm_ioctl")


def test_no_control_characters_and_no_end() -> None:
    text = "[    9.000001] WARNING: a.c:1 at f\x1b[31m\x00\x07\u202e+0x1/0x2 " + "x" * 10_000 + "\n"
    text += "[    9.000002] more\n" * 10_000
    (alarm,) = find_alarms(text)
    assert all(line.isprintable() and len(line) <= MAX_LINE for line in alarm.splat.split("\n"))
    assert len(alarm.splat.split("\n")) == MAX_LINES
    assert len(find_alarms(OLD_WARN * 1000)) == MAX_ALARMS


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "[",
            "[ ",
            "[    1.000000] ",
            "WARNING: at ",
            "[    1.000000] WARNING: ",
            "rcu: INFO: ",
            "x-safe -> ",
            "\n",
            "0",
        ),
        *("[    1.000000] WARNING: f.c:1 at f+0x1/0x2\n", "[    1.000000] ------------[ cut here ]------------\n"),
    ],
)
def test_time_grows_with_the_length_only(unit: str) -> None:
    text = "[    1.000000] WARNING: x at y\n" + unit * (2_000_000 // len(unit))
    begin = time.process_time()
    find_alarms(text)
    find_alarms(text.encode())
    assert time.process_time() - begin < 4


@pytest.mark.parametrize("seed", range(30))
def test_any_bytes(seed: int) -> None:
    rng = random.Random(seed)
    parts = [NEW_WARN.encode(), LOCKDEP.encode(), b"[    1.000000] BUG: ", b"\xff\xfe", b"\x00\n", rng.randbytes(99)]
    text = b"".join(rng.choices(parts, k=20))
    for alarm in find_alarms(text):
        assert isinstance(alarm, Alarm) and alarm.splat and alarm.signature[0] == alarm.kind
