#!/bin/sh
# scripts/setup.sh LOCK [PROGRAM=PACKAGE...]: .venv with what LOCK pins, and the programs, which
# come from Debian's packages where they are missing. PROGRAM: a name, or a pattern of paths.
#
# Does everything that a fresh Debian needs, and nothing when there is nothing to do (20 ms).
# What is installed is known by a copy of the lock file inside .venv, written last: an install that
# was interrupted leaves none, and unlike a time stamp it survives checkouts and copies.
set -eu
cd "$(dirname "$0")/.."
lock=$1
shift
stamp=.venv/installed-$lock
pythons=${PYTHON:-python3 python3.13 python3.12 python3.11}

say() { echo "setup: $*" >&2; }

# `import pip` also fails when the Python below .venv was removed or replaced by another version.
venv_works() { .venv/bin/python -c 'import pip' 2>/dev/null; }

# The first that runs and is new enough. A name on PATH is no proof: pyenv leaves some that only fail.
find_python() {
    for name in $pythons; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    say "no Python 3.11 or newer found (tried: $pythons); set PYTHON=/path/to/python3"
    return 1
}

# Mirrors have bad moments, so three tries; another apt may hold the lock, so wait for it (seconds).
install_packages() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "missing: $*; install with: sudo apt-get install $*"
        return 1
    fi
    for pause in 5 15 0; do
        say "apt-get install $*"
        if apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq \
            -o DPkg::Lock::Timeout=120 install --no-install-recommends "$@" </dev/null >/dev/null; then
            return
        fi
        sleep "$pause"
    done
    say "could not install: $*"
    return 1
}

packages=
for tool in "$@"; do
    program=${tool%%=*}
    # Servers live in /usr/sbin, which is not on everybody's PATH. Unquoted: it may be a pattern.
    PATH=$PATH:/usr/sbin command -v $program >/dev/null || packages="$packages ${tool#*=}"
done
python=
if ! venv_works; then
    python=$(find_python)
    # Debian keeps ensurepip, which venv needs, in a package of its own for each Python version.
    "$python" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages $(
        "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    )"
fi
# Unquoted: one argument for each package.
if [ -n "$packages" ]; then install_packages $packages; fi

if [ -n "$python" ]; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
if ! cmp -s "$lock" "$stamp"; then
    say "installing $lock"
    rm -f .venv/installed-*
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    cp "$lock" "$stamp"
    # The development lock holds all of the other one: `make run` has nothing left to do.
    if [ "$lock" = requirements-dev.lock ]; then
        cp requirements.lock .venv/installed-requirements.lock
    fi
fi
