#!/usr/bin/env bash
# Have the virtual environment .venv with exactly what a lock says: `lab/env.sh controller|lab|test`.
# Finds a Python >= 3.12 (ansible-core 2.21 needs it): PATH, pyenv, and as the last resort the distribution's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

private=/opt/dagster-gce-python

say() { printf 'env: %s\n' "$*" >&2; }

fits() { # whether $1 is a Python >= 3.12 that can make a virtual environment
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1
}

candidates() {
    local root="${PYENV_ROOT:-$HOME/.pyenv}" version
    [ -z "${PYTHON:-}" ] || echo "$PYTHON"
    for version in 3.13 3.14 3.12 3; do command -v "python$version" || true; done
    echo "$private/usr/bin/python3.13"
    find "$root/versions" -maxdepth 3 -path '*/bin/python3.1[2-9]' 2>/dev/null | sort -rV || true
}

find_python() {
    local candidate
    while read -r candidate; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done < <(candidates)
    return 1
}

install_python() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || return 1
    say 'found no Python >= 3.12: installing one with apt'
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends python3 python3-venv >&2
    find_python >/dev/null || install_private_python
}

# Debian 12 has 3.11 only. Debian 13's interpreter would bring Debian 13's C library with it, so it gets a folder of its
# own with all that it needs, and nothing of the system changes. `make demo-down` leaves it; remove the folder at will.
install_private_python() {
    local mirror libraries
    mirror=$(sed -nE 's/^(URIs: *|deb +(\[[^]]*\] +)?)([^ ]+debian)\/?( .*)?$/\3/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
    [ -n "$mirror" ] || return 1
    say "found none: making one in $private from Debian 13's packages (half a minute)"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends debootstrap patchelf >&2
    rm -rf "$private"
    debootstrap --variant=minbase --include=python3-venv trixie "$private" "$mirror" >/dev/null
    libraries=$(dirname "$(find "$private/usr/lib" -name 'ld-linux-*.so.*' -print -quit)")
    patchelf --set-interpreter "$(find "$libraries" -name 'ld-linux-*.so.*' -print -quit)" \
        --force-rpath --set-rpath "$libraries" "$private/usr/bin/python3.13"
}

make_venv() { # with the interpreter $1
    say "making .venv with $("$1" --version) ($1)"
    rm -rf .venv
    if [ "$1" != "$private/usr/bin/python3.13" ]; then
        "$1" -m venv .venv
        return
    fi
    # Debian's ensurepip looks for its wheels under the system's /usr/share only.
    local wheels="$private/usr/share/python-wheels"
    "$1" -m venv --without-pip .venv
    .venv/bin/python "$(find "$wheels" -name 'pip-*.whl')/pip" install --quiet --no-index --find-links "$wheels" pip
}

stamp_of() { # the file that says that lock $1, as it is now, is installed
    echo ".venv/.installed-$1-$(sha256sum <"requirements/$1.txt" | cut -c1-16)"
}

# `test` holds everything of `lab`, and `lab` of `controller`.
satisfied() { # whether .venv has lock $1, or one that holds everything of it
    local locks=(controller lab test) lock found=
    for lock in "${locks[@]}"; do
        [ "$lock" != "$1" ] || found=yes
        [ -z "$found" ] || [ ! -e "$(stamp_of "$lock")" ] || return 0
    done
    return 1
}

main() {
    local lock="requirements/$1.txt" python
    if satisfied "$1" && [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null; then
        return
    fi
    if ! { [ -x .venv/bin/python ] && fits .venv/bin/python; }; then
        if ! python=$(find_python) && ! { install_python && python=$(find_python); }; then
            say 'error: found no Python >= 3.12 (PATH, pyenv); expected one, since ansible-core 2.21 needs it.'
            say 'Install one (apt install python3 python3-venv as root, pyenv, uv) or set PYTHON=/path/to/python3.12'
            exit 1
        fi
        make_venv "$python"
    fi
    say "installing $lock"
    # The lock names everything, so there is nothing to resolve; and pip compiles on one processor only.
    .venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps --no-compile --requirement "$lock"
    # Some packages hold files of another Python.
    .venv/bin/python -m compileall -qq -j 0 .venv/lib >/dev/null || true
    rm -f .venv/.installed-"$1"-*
    touch "$(stamp_of "$1")"
}

case "${1:-}" in
controller | lab | test) main "$1" ;;
*)
    say "usage: $0 controller|lab|test"
    exit 2
    ;;
esac
