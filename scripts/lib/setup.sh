# Sourced by the scripts beside it: installs what is missing, and is quick when nothing is.
# shellcheck shell=bash

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv
cd "$ROOT"

say() { printf '%s\n' "$*" >&2; }

require_root() {
    [ "$(id -u)" = 0 ] || { say "This needs root: it makes network namespaces and links. Run it with sudo."; exit 1; }
}

# Debian packages by name; those that are installed cost one dpkg-query.
ensure_packages() {
    local missing=() package
    local installed
    installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "$@" 2>/dev/null | sed -n 's/^ii *//p') || true
    for package in "$@"; do
        grep -qxF "$package" <<<"$installed" || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || { say "Please install what corresponds to these Debian packages: ${missing[*]}"; exit 1; }
    say "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # A container runtime or an etcd that its package starts would be a stranger to the tests: nothing is started.
    local policy=/usr/sbin/policy-rc.d own_policy=""
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && own_policy=$policy
    fi
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } ||
        { [ -z "$own_policy" ] || rm -f "$own_policy"; say "apt-get could not install ${missing[*]}"; exit 1; }
    [ -z "$own_policy" ] || rm -f "$own_policy"
}

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$candidate"
            return
        fi
    done
    say "Python 3.11 or newer is needed"
    exit 1
}

# The virtual environment with this checkout installed in it; made anew when what it is made from has changed.
ensure_venv() {
    local stamp
    stamp=$(cat pyproject.toml hatch_build.py cni_underlay/client/{*.c,*.h,build.py} | sha256sum | cut -d' ' -f1)
    if [ "$(cat "$VENV/.stamp" 2>/dev/null)" = "$stamp" ] && [ -x cni_underlay/client/underlay ]; then
        return
    fi
    say "preparing the virtual environment in .venv"
    "$(find_python)" -m venv "$VENV"
    # --group needs pip 25.1
    "$VENV/bin/pip" install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
    "$VENV/bin/pip" install --quiet --disable-pip-version-check --editable . --group dev
    echo "$stamp" >"$VENV/.stamp"
}

# musl: the static client starts in an eighth of the time that it takes with glibc (docs/decisions/0006)
BUILD_PACKAGES=(gcc libc6-dev musl-tools python3-venv)
LAB_PACKAGES=(iproute2 iputils-ping qemu-system-x86 busybox-static kmod)
TEST_PACKAGES=(containerd runc containernetworking-plugins iptables nftables conntrack procps util-linux strace)
