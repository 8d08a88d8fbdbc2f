#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a bare Debian 12 or 13 machine to a working `shadowfuzz` command in .venv, with the targets that are asked for:
#     tools/setup.sh [argument of `shadowfuzz setup`...]     e.g. tools/setup.sh --all-targets
# With --for-tests as the first argument, also what only the tests need.  With --fast-qemu, also what the build of the
# fast QEMU needs, if it can be had; with --pure, not what compiling the checker needs.
# Safe to kill, to run twice, and to run twice at once.  Root is used for Debian packages only.
set -eu

checkout=$(cd "$(dirname "$0")/.." && pwd -P)
venv=$checkout/.venv
# The key of the environment in .venv; if it is missing or different, the environment is made again.
stamp=$venv/.shadowfuzz

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'shadowfuzz: %s\n' "$*" >&2; exit 3; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo -- "$@"
    else
        sudo -n -- "$@" # there is no terminal for a password
    fi
}

missing_packages() { # list...
    (cd "$checkout/tools" && sed -e 's/#.*//' -e 's/|.*//' "$@") | while read -r package others; do
        [ -n "$package" ] && [ "$others" != "[!$(dpkg --print-architecture)]" ] || continue
        # "installed" only: a package that a killed apt left unpacked but not configured counts as missing.
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=
        [ "$state" = installed ] || printf '%s ' "$package"
    done
}

apt_install() { # argument of `apt-get install`...
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 install "$@"
}

repair_dpkg() { # repair a killed installation, after a surviving dpkg has released the lock
    tries=300
    until as_root dpkg --configure -a >"$log" 2>&1; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ] || ! grep -q 'locked by another process' "$log"; then
            break
        fi
        sleep 1
    done
    # dpkg was killed while it unpacked these, which neither --configure nor --fix-broken repairs.
    half=$(dpkg-query -W -f '${db:Status-Eflag} ${binary:Package}\n' | sed -n 's/^reinstreq //p')
    # shellcheck disable=SC2086  # a list of package names
    [ -z "$half" ] || apt_install --reinstall $half >"$log" 2>&1 || true
}

can_be_root() {
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null || return 1
    if [ -t 0 ]; then sudo -v; else sudo -n true; fi 2>/dev/null
}

install_packages() { # package...
    command="apt-get install $*"
    # Once, first, so that sudo asks for a password only once.
    can_be_root || die "you may not install the Debian packages that are missing; an administrator can: $command"
    say "installing Debian packages: $*"
    log=$(mktemp)
    # The lists of a fresh machine are old or absent.  If one cannot be fetched (a third party's archive is down), the
    # installation may still succeed, so only its own failure counts.
    as_root apt-get -q -o Acquire::Retries=2 update >"$log" 2>&1 || true
    repair_dpkg
    if apt_install "$@" >"$log" 2>&1; then
        rm -f "$log"
        return
    fi
    reason=$(grep -E '^(E:|sudo:)' "$log" | head -n 1)
    [ -n "$reason" ] || reason=$(tail -n 1 "$log")
    rm -f "$log"
    die "cannot install Debian packages ($reason): as root, run $command"
}

find_python() {
    # The versions for which atheris has wheels. /usr/bin first: another one in PATH (pyenv, conda) may lack venv or be
    # removed later.
    for candidate in /usr/bin/python3 /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13 \
        python3.11 python3.12 python3.13 python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11, 3.12 or 3.13 with its venv module is missing: install the Debian package python3-venv"
}

make_environment() { # python key
    mkdir -p "$venv"
    if [ ! -e "$stamp" ] && [ -n "$(ls -A "$venv")" ]; then
        die "$venv exists but was not made by this script: move it away"
    fi
    say "making the Python environment $venv"
    # An incomplete or outdated environment is not repaired but made again, from pyproject.toml.
    echo incomplete >"$stamp"
    find "$venv" -mindepth 1 -maxdepth 1 ! -name .shadowfuzz -exec rm -rf {} +
    log=$(mktemp)
    if ! "$1" -m venv "$venv" >"$log" 2>&1 ||
        ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
            -e "$checkout[test]" >>"$log" 2>&1; then
        # Prefer the cause: pip prints further errors around it.
        reason=$(grep -o -m 1 -E '(ERROR: Could not|ERROR: No matching|\[Errno [0-9]+\]|No space left).*' "$log") ||
            reason=$(grep -o -m 1 -E 'ERROR: .*' "$log") || reason=$(tail -n 1 "$log")
        rm -f "$log"
        die "cannot make the Python environment ($reason): check the network and the space in $checkout, then try again"
    fi
    rm -f "$log"
    echo "$2" >"$stamp.new" && mv "$stamp.new" "$stamp"
}

write_launcher() {
    launcher=$venv/bin/shadowfuzz
    { echo "#!$venv/bin/python -IS" && cat "$checkout/tools/launcher.py"; } >"$launcher.new"
    chmod +x "$launcher.new"
    mv "$launcher.new" "$launcher"
}

[ -r /etc/os-release ] && . /etc/os-release
[ "${ID:-}" = debian ] || die "this machine runs ${PRETTY_NAME:-an unknown system}, whose apt has no Debian kernels: use \
Debian 12 or 13; a container of it suffices: neither /dev/kvm nor privileges are needed"

# One set-up of a checkout at a time.  The lock is released with the last process that has the file open, so this also
# waits for processes that a killed set-up left running.
command -v flock >/dev/null || die "flock is missing: install the Debian package util-linux"
exec 9<"$checkout/tools/setup.sh"
flock -n 9 || { say "waiting for another set-up of $checkout"; flock 9; }

lists=debian-packages.txt
if [ "${1:-}" = --for-tests ]; then
    lists="$lists debian-packages-tests.txt"
    shift
fi
case " $* " in *" --pure "*) ;; *) lists="$lists debian-packages-compiled.txt" ;; esac
# shellcheck disable=SC2086  # a list of files
missing=$(missing_packages $lists)
# shellcheck disable=SC2086  # a list of package names
[ -z "$missing" ] || install_packages $missing
case " $* " in
    *' --fast-qemu '*)
        missing=$(missing_packages debian-packages-fast-qemu.txt)
        # What cannot be installed is no reason to stop: Debian's own QEMU does the same.
        # shellcheck disable=SC2086  # a list of package names
        [ -z "$missing" ] || (install_packages $missing) || true
        ;;
esac

python=$(find_python)
key=$({ cat "$checkout/pyproject.toml" "$checkout/tools/setup.sh"; echo "$checkout"; "$python" -VV; } | sha256sum)
[ "$(cat "$stamp" 2>/dev/null)" = "$key" ] || make_environment "$python" "$key"

# Replaces pip's own script, unless the path cannot be in a first line (spaces, length).
case $venv in
    *' '* | *"	"*) ;;
    *) [ "${#venv}" -gt 100 ] || write_launcher ;;
esac

# The cache has its own locks; a second set-up need not wait for this one's kernels.
exec 9<&-
exec "$venv/bin/shadowfuzz" setup "$@"
