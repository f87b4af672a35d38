#!/bin/sh
# `make setup`: creates .venv from the lock files, or does nothing if it is up to date.
#
#   PYTHON     default: the .venv's own, else the first that fits, else uv's
#   BACKEND    tensorflow or jax: whose CUDA libraries a machine with a GPU gets; default: those that
#              are installed already, else TensorFlow's
set -eu
cd "$(dirname "$0")"
VERSIONS="3.11, 3.12 or 3.13"

fail() {
    echo "error: $1" >&2
    exit 1
}

# Debian's Python lacks ensurepip until python3-venv is installed; a shim of pyenv may not run.
fits() {
    "$1" -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
        2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || fail "PYTHON=$PYTHON is not Python $VERSIONS, or lacks venv"
        echo "$PYTHON"
        return
    fi
    for candidate in .venv/bin/python python3.11 python3.12 python3.13 python3 python; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    command -v uv >/dev/null || fail "no Python $VERSIONS with venv was found: install one (Debian,\
 Ubuntu: apt install python3-venv; macOS: brew install python@3.12) or uv, which brings its own\
 (https://docs.astral.sh/uv), or name one: make PYTHON=/path/to/python"
    echo uv
}

# Sets `cuda` (tensorflow, jax or nothing) and `why`.
choose_cuda() {
    case "${BACKEND:-}" in
    "" | tensorflow | jax) ;;
    *) fail "BACKEND=$BACKEND is not supported: tensorflow or jax" ;;
    esac
    kept=$(cat .venv/cuda 2>/dev/null || true)
    gpu=$(nvidia-smi -L 2>/dev/null | sed -n 's/^GPU [0-9]*: \(.*\) (UUID.*/\1/p' | head -n 1)
    if [ -n "$gpu" ]; then
        cuda=${BACKEND:-${kept:-tensorflow}} why="nvidia-smi lists $gpu"
    else # a driver that fails today may work tomorrow
        cuda=$kept why="installed before"
    fi
    case "$(uname -sm) $cuda" in
    "Linux x86_64 "* | *" jax" | *" ") ;;
    *) fail "TensorFlow has CUDA libraries for x86-64 only; JAX has them here: make setup BACKEND=jax" ;;
    esac
    case $cuda in
    tensorflow) locks="requirements.lock requirements-cuda.lock" ;;
    jax) locks="requirements.lock requirements-jax-cuda.lock" ;;
    *) locks=requirements.lock why="nvidia-smi lists no GPU" ;;
    esac
}

up_to_date() {
    made_with=$(cat .venv/installed 2>/dev/null) || return 1
    [ "${PYTHON:-$made_with}" = "$made_with" ] || return 1
    [ "$(cat .venv/cuda 2>/dev/null)" = "$cuda" ] || return 1
    for file in setup.sh pyproject.toml requirements-setup.lock $locks; do
        [ ! "$file" -nt .venv/installed ] || return 1
    done
}

# uv installs the 2.5 GB in seconds where pip takes minutes; pip only installs uv. Bytecode is
# compiled here once: with PYTHONDONTWRITEBYTECODE set, every process would otherwise compile all
# its imports again.
install() {
    made_with=$python
    case $python in
    .venv/bin/python) made_with=$(cat .venv/installed 2>/dev/null || echo "$python") ;;
    uv) rm -rf .venv && uv venv --quiet --seed --python ">=3.11,<3.14" .venv ;;
    *) "$python" -m venv --clear .venv ;;
    esac
    rm -f .venv/installed
    export VIRTUAL_ENV="$PWD/.venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements-setup.lock
    # shellcheck disable=SC2086  # two files
    .venv/bin/uv pip sync --quiet --compile-bytecode --require-hashes $locks
    .venv/bin/uv pip install --quiet --offline --no-deps --no-build-isolation --editable .
    echo "$cuda" >.venv/cuda
    echo "$made_with" >.venv/installed
}

choose_cuda
if up_to_date; then
    exit
fi
python=$(find_python)
case $cuda in
tensorflow) libraries="TensorFlow's CUDA libraries" ;;
jax) libraries="JAX's CUDA libraries" ;;
*) libraries="no CUDA libraries" ;;
esac
echo "setup: $locks into .venv, with $python; $libraries: $why"
install
