#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Build KVM's own selftests from Debian's kernel sources, record some of them on a target, and check the recordings:
#     tools/kvm-selftests.sh [--target NAME] [--dir DIR] [TEST...]     e.g. tools/kvm-selftests.sh psci_test vgic_irq
# Prints one row for each test: exit status of the program, exits, unexplained and new divergences.  Exit status: 0
# nothing is new.  DIR (out/selftests) holds programs and recordings; existing programs are not built again.
set -eu

# Test, CPUs of the target, arguments: sizes for which an emulated machine needs seconds.
tests="
psci_test 1
smccc_filter 1
hypercalls 1
guest_print_test 1
no-vgic-v3 1
steal_time 1
vgic_irq 1
vgic_lpi_stress 1
vpmu_counter_access 1
coalesced_io_test 1
set_memory_region_test 1
page_fault_test 1
debug-exceptions 1
kvm_page_table_test 1 -b 4M
demand_paging_test 1 -b 4M
dirty_log_perf_test 1 -b 4M -i 2
memslot_modification_stress_test 1 -b 4M -i 20
arch_timer 2 -e 100000
"

say() { printf 'selftests: %s\n' "$*" >&2; }
die() { printf 'shadowfuzz: %s\n' "$*" >&2; exit "${status:-3}"; }

checkout=$(cd "$(dirname "$0")/.." && pwd -P)
shadowfuzz=$checkout/.venv/bin/shadowfuzz
dir=$checkout/out/selftests
target=kvm-6.12-nvhe
while [ $# -gt 0 ]; do
    case $1 in
    --target | --dir)
        [ $# -gt 1 ] || status=2 die "$1: expected a value"
        [ "$1" = --dir ] && dir=$2 || target=$2
        shift 2
        ;;
    -*) status=2 die "$1: expected --target NAME, --dir DIR or the names of tests" ;;
    *) break ;;
    esac
done
[ -x "$shadowfuzz" ] || die "$shadowfuzz is missing: run make setup"
for command in aarch64-linux-gnu-gcc make; do
    command -v "$command" >/dev/null || die "$command is missing: install its Debian package"
done

build() {
    tree=$("$checkout/.venv/bin/python" -m harness.vm.kernels.selftest_tree) || exit
    say "compiling"
    make -s -C "$tree/tools/testing/selftests/kvm" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- \
        CC=aarch64-linux-gnu-gcc EXTRA_CFLAGS=-static LDFLAGS="-static -pthread -no-pie" OUTPUT="$dir/programs"
    find "$dir/programs" -name '*.[od]' -exec rm {} +
    touch "$dir/built"
}

mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
[ -e "$dir/built" ] || build >"$dir/build.log" || die "the tests do not compile: see $dir/build.log"

new=0
run() { # test cpus argument...
    name=$1 cpus=$2
    shift 2
    program=$(find "$dir/programs" -type f -name "$name" -perm -1)
    [ -n "$program" ] || status=2 die "$name: no such test in $dir/programs"
    trace=$dir/$name.trace
    "$shadowfuzz" recording record --target "$target" --smp "$cpus" --seconds 120 --out "$trace" "$program" "$@" \
        >"$dir/$name.log" 2>&1 || die "$name was not recorded: see $dir/$name.log"
    found=0
    "$shadowfuzz" recording check --accept-kept "$trace" >"$dir/$name.check" 2>/dev/null || found=$?
    [ "$found" -le 1 ] || die "$name was not checked: see $dir/$name.check"
    [ "$found" -eq 0 ] || new=1
    ended=$(sed -n 's/^the program //p' "$dir/$name.log")
    exits=$(sed -n 's/^.* records, \([0-9]*\) exits.*/\1/p' "$dir/$name.log")
    printf '%-34s %-26s %7s  %s\n' "$name" "$ended" "$exits" "$(tail -n 1 "$dir/$name.check")"
}

printf '%-34s %-26s %7s  %s\n' test program exits check
printf '%s\n' "$tests" | {
    while read -r name cpus arguments; do
        [ -n "$name" ] || continue
        wanted=no
        [ $# -gt 0 ] || wanted=yes
        for one in "$@"; do [ "$one" != "$name" ] || wanted=yes; done
        # shellcheck disable=SC2086  # words
        [ "$wanted" = no ] || run "$name" "$cpus" $arguments </dev/null
    done
    exit "$new"
}
