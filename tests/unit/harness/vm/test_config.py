# SPDX-License-Identifier: Apache-2.0
"""Targets: those of the project, and one sentence for every kind of invalid file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InputError, SetupError
from harness.vm.config import (
    DEFAULT_TARGET,
    KEYS,
    MAX_CONFIG_BYTES,
    Mode,
    guess_like,
    list_configs,
    load_config,
    name_on_tree,
    parse_config,
)
from tests.support.fake_tree import fake_tree

GOOD = """\
summary = "a machine"
mode = "nvhe"
cpu = "cortex-a72"
machine = ["virtualization=on"]
memory_mib = 512
shared_mib = 16
kernel_package = "linux-image-cloud-arm64"
cmdline = ["kvm-arm.mode=nvhe"]
"""


def test_carried_targets() -> None:
    assert list_configs()[0] == DEFAULT_TARGET
    assert set(list_configs()) >= {"kvm-nvhe", "kvm-vhe", "kvm-protected", "kvm-6.12-nvhe"}
    for name in list_configs():
        config = load_config(name)
        assert config.name == name
        assert "virtualization=on" in config.machine  # needed for EL2, and so for KVM
    assert load_config("kvm-vhe").mode is Mode.VHE
    assert load_config("kvm-vhe").cpu != load_config("kvm-nvhe").cpu


def test_path_and_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    config = load_config(path)
    assert (config.name, config.memory_mib, config.cmdline) == ("mine", 512, ("kvm-arm.mode=nvhe",))
    assert load_config(str(path)) == config


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match="no such target; there are kvm-nvhe, "):
        load_config("kvm-nhve")


def test_another_emulator_is_part_of_the_name(tmp_path: Path) -> None:
    config = load_config("kvm-nvhe@6.12.117%cortex-a53%qemu-10.0")
    assert config.name == "kvm-nvhe@6.12.117%qemu-10.0%cortex-a53", "one name for any order"
    assert (config.qemu, config.cpu, config.kernel_version) == ("10.0", "cortex-a53", "6.12.117")
    assert load_config(config.name) == config
    assert load_config("kvm-nvhe%max").cpu == "max" and load_config("kvm-vhe%qemu-10").cpu == load_config("kvm-vhe").cpu
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_config(f"{path}%max") == replace(load_config(path), name="mine%max", cpu="max")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kvm-nvhe%", "no CPU model ''; there are cortex-a35, "),
        ("kvm-nvhe%cortex-a99", "no CPU model 'cortex-a99'"),
        ("kvm-nvhe%qemu-", "expected %qemu-VERSION, %CPU or both"),
        ("kvm-nvhe%qemu-7.2%qemu-10.0", "expected %qemu-VERSION, %CPU or both"),
        ("kvm-nvhe%max%max", "expected %qemu-VERSION, %CPU or both"),
        ("kvm-vhe%cortex-a53", "cortex-a53 has no VHE, which kvm-vhe needs"),
        ("kvm-nope%max", "no such target"),
    ],
)
def test_a_wrong_emulator(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load_config(name)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("memory_mib = 512", 'memory_mib = "512"', 5, "memory_mib is '512'; expected a whole number from 256"),
        ("memory_mib = 512", "memory_mib = true", 5, "expected a whole number"),
        ("memory_mib = 512", "memory_mib = 255", 5, "expected a whole number from 256 to 16384"),
        ("memory_mib = 512", "memory_mib = 512.0", 5, "expected a whole number"),
        ("shared_mib = 16", "shared_mib = 0", 6, "from 1 to 1024"),
        ("shared_mib = 16", "shared_mib = 16\nfast_qemu = 1", 7, "fast_qemu is 1; expected true or false"),
        ('mode = "nvhe"', 'mode = "hvhe"', 2, 'expected one of "nvhe", "vhe", "protected"'),
        ('mode = "nvhe"', 'mode = ["nvhe"]', 2, 'expected one of "nvhe"'),
        ('cpu = "cortex-a72"', 'cpu = "a b"', 3, "expected a QEMU CPU model"),
        ('cpu = "cortex-a72"', 'cpu = "-daemonize"', 3, "expected a QEMU CPU model"),
        ('machine = ["virtualization=on"]', "machine = [1]", 4, "expected a list"),
        ('machine = ["virtualization=on"]', 'machine = ["a=b,c=d"]', 4, "expected a list"),
        ('"linux-image-cloud-arm64"', '"-o=Dir::Etc=x"', 7, "expected a Debian package"),
        ('["kvm-arm.mode=nvhe"]', '["two words"]', 8, "expected a list of words"),
        ("shared_mib = 16", "shared_mb = 16", 6, "unknown key 'shared_mb'; expected summary, mode"),
        ("shared_mib = 16", "[shared_mb]\nx = 1", 6, "unknown key 'shared_mb'"),
        ("shared_mib = 16\n", "", None, "key 'shared_mib' is missing; expected a whole number"),
        ("shared_mib = 16", "shared_mib = ", 6, "not TOML: Invalid value"),
        ("shared_mib = 16", "memory_mib = 16", 6, "not TOML: Cannot overwrite a value"),
        ('cmdline = ["kvm-arm.mode=nvhe"]', 'cmdline = ["', 8, "not TOML: "),
    ],
)
def test_wrong_file_is_one_sentence(old: str, new: str, line: int | None, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config("x", GOOD.replace(old, new), "x.toml")
    assert (caught.value.where, caught.value.line) == ("x.toml", line)
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", [key.name for key in KEYS if not key.optional])
def test_every_key_is_required(key: str) -> None:
    text = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(f"{key} "))
    with pytest.raises(InputError, match=f"key '{key}' is missing"):
        parse_config("x", text, "x.toml")


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the configuration: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot read the configuration: Is a directory"):
        load_config(tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        load_config("a\0/b.toml")
    (tmp_path / "latin.toml").write_bytes(b"summary = 'x'\ncpu = '\xff'\n")
    with pytest.raises(InputError, match=r"latin\.toml:2: not UTF-8"):
        load_config(tmp_path / "latin.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(InputError, match="expected a short TOML file"):
        load_config(tmp_path / "big.toml")
    with pytest.raises(InputError, match="nested too deeply"):
        parse_config("x", "summary = " + "[" * 20000, "x.toml")


@given(st.text(max_size=200))
def test_any_text_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config("x", text, "x.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("release", "like"),
    [
        ("6.1.0", "kvm-nvhe"),
        ("5.15.3", "kvm-nvhe"),
        ("6.6.9", "kvm-nvhe"),
        ("6.12.117-mine", "kvm-6.12-nvhe"),
        ("7.0.0-rc1", "kvm-6.12-nvhe"),
        ("7.3.2", "kvm-7.3-nvhe"),
        ("8.0.0", "kvm-7.3-nvhe"),
    ],
)
def test_whose_kept_findings_apply(release: str, like: str) -> None:
    assert guess_like(release) == like
    assert load_config(guess_like(release, Mode.VHE)).mode is Mode.VHE


def test_build_directory_is_part_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = fake_tree(tmp_path / "linux")
    config = load_config(str(tree))
    assert (config.name, config.like) == (f"kvm-6.12-nvhe@{tree}", "kvm-6.12-nvhe")
    assert (config.kernel_tree, config.kernel_version, config.kernel_package) == (tree, "", "")
    assert load_config(config.name) == config and config.mode is Mode.NVHE
    assert str(tree) in config.summary and "kvm-6.12-nvhe" in config.summary
    monkeypatch.chdir(tmp_path)
    assert load_config("./linux") == load_config("kvm-6.12-nvhe@./linux") == config
    moved = load_config(f"kvm-vhe@{tree}%max")
    assert (moved.name, moved.cpu, moved.mode, moved.kernel_tree) == (f"kvm-vhe@{tree}%max", "max", Mode.VHE, tree)
    assert load_config(f"kvm-nvhe@{tmp_path}/gone").kernel_tree == tmp_path / "gone", "its findings can still be read"
    with pytest.raises(SetupError, match=r"no include/config/kernel\.release"):
        load_config(str(tmp_path))


def test_name_on_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = fake_tree(tmp_path / "linux")
    monkeypatch.chdir(tree)
    assert name_on_tree(Path()) == f"kvm-6.12-nvhe@{tree}"
    assert name_on_tree(tree, "kvm-protected") == f"kvm-protected@{tree}"
    assert name_on_tree(tree, "kvm-vhe%max") == f"kvm-vhe@{tree}%max"
    for wrong in ("kvm-nvhe@6.12.117", "mine.toml", "kvm-x"):
        with pytest.raises(InputError, match="with --tree, expected one of kvm-nvhe, "):
            name_on_tree(tree, wrong)
    with pytest.raises(InputError, match="cannot use it as a kernel build directory: No such file"):
        name_on_tree(tmp_path / "none")


def test_file_with_a_build_directory(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "linux")
    path = tmp_path / "mine.toml"
    path.write_text('kernel_tree = "linux"\nmemory_mib = 1024\n')
    config = load_config(str(path))
    assert (config.name, config.kernel_tree, config.memory_mib) == (f"kvm-6.12-nvhe@{path}", tree, 1024)
    assert config.cpu == load_config("kvm-6.12-nvhe").cpu, "missing keys are those of the target in `like`"
    assert load_config(config.name) == config, "a finding's target can be named again"
    path.write_text('kernel_tree = "linux"\nlike = "kvm-vhe"\n')
    assert (load_config(path).like, load_config(path).mode) == ("kvm-vhe", Mode.VHE)
    path.write_text('kernel_tree = "linux"\nmode = "protected"\n')
    assert load_config(path).like == "kvm-protected"
    path.write_text(GOOD + 'like = "kvm-6.12-nvhe"\n')
    assert (load_config(path).like, load_config(path).kernel_package) == ("kvm-6.12-nvhe", "linux-image-cloud-arm64")
    assert load_config(path).linux == "", "a file's own package may be of any series"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('kernel_tree = "none"\n', "cannot use it as a kernel build directory: No such file"),
        ('kernel_tree = "linux"\nkernel_version = "6.1"\n', "expected kernel_tree or kernel_version, not both"),
        ('kernel_tree = "linux"\nlike = "kvm-x"\n', "like is 'kvm-x'; expected one of kvm-nvhe, "),
        ("kernel_tree = 5\n", "kernel_tree is 5; expected the path of a kernel build directory"),
    ],
)
def test_wrong_file_with_a_build_directory(tmp_path: Path, text: str, reason: str) -> None:
    fake_tree(tmp_path / "linux")
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert reason in str(caught.value)
