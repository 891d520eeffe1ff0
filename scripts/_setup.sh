# Sourced by the scripts here: finds a Python, makes .venv, builds and installs the project into it.
# What takes time is told on a terminal only; in a pipe nothing is printed unless it fails.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
log=$root/build/setup.log

die() {
    printf '%s\n' "$@" >&2
    exit 1
}

# step TEXT COMMAND...: runs the command with its output in the log. A terminal shows the text and
# the seconds that passed; a failure shows what the log says about it.
step() {
    local text=$1 start=$SECONDS pid
    shift
    mkdir -p "${log%/*}"
    set -m  # a process group of its own, so that an interrupt ends the compilers too
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    set +m
    trap 'kill -- "-$pid" 2>/dev/null; exit 130' INT TERM
    while [[ -t 2 ]] && kill -0 "$pid" 2>/dev/null; do
        printf '\r%s ... %d s' "$text" $((SECONDS - start)) >&2
        sleep 0.2
    done
    if wait "$pid"; then
        trap - INT TERM
        [[ ! -t 2 ]] || printf '\r%s ... done in %d s\n' "$text" $((SECONDS - start)) >&2
        return
    fi
    [[ ! -t 2 ]] || printf '\n' >&2
    explain "$text"
}

# Ends the script with the message that matters in the log: a dead network, CMake's first error,
# else the log's end.
explain() {
    local reason
    if grep -q 'connection broken by' "$log" && grep -q 'No matching distribution' "$log"; then
        die "$1: failed." "The package index could not be reached. Connect to the network and try" \
            "again (pip's index and proxy settings are used). The whole output is in $log."
    fi
    reason=$(awk '/CMake Error at/ { on = 1; next } on && /^ *(Call Stack|-- )/ { exit }
                  on && NF { sub(/^ +/, ""); print; n++ } on && !NF && n > 1 { exit }' "$log")
    [[ -n $reason ]] || reason=$(grep -v '^ *$' "$log" | tail -n 30)
    die "$1: failed." "$reason" "(The whole output is in $log.)"
}

# Prints the path of a Python that can build and run the project.
find_python() {
    local name names=(python3 python3.{14,13,12,11,10} python)
    [[ -z ${PYTHON:-} ]] || names=("$PYTHON")
    for name in "${names[@]}"; do
        if command -v "$name" >/dev/null && "$name" "$root/scripts/_check_python.py" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    for name in "${names[@]}"; do  # say what the likeliest one lacks
        if command -v "$name" >/dev/null; then
            "$name" "$root/scripts/_check_python.py" >&2 || exit 1
        fi
    done
    die "No Python was found${PYTHON:+ as $PYTHON}. Install CPython 3.10 or newer (Debian, Ubuntu:" \
        "apt install python3-dev python3-venv), or name yours in the environment variable PYTHON."
}

# find_compiler VARIABLE LANGUAGE NAME...: the one that the variable names, else one of the names
find_compiler() {
    local variable=$1 language=$2 name
    shift 2
    [[ -z ${!variable:-} ]] || set -- "${!variable%% *}"
    for name in "$@"; do
        ! command -v "$name" >/dev/null || return 0
    done
    die "No $language compiler was found${!variable:+ as ${!variable}}. Install one (Debian, Ubuntu: apt install build-essential;" \
        "Fedora: dnf install gcc-c++; macOS: xcode-select --install), or name yours in the" \
        "environment variable $variable."
}

make_venv() {
    local python
    if [[ -x $venv/bin/python ]] && "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        return
    fi
    python=$(find_python) || exit 1
    rm -rf "$venv"
    step "Making the virtual environment .venv" "$python" -m venv "$venv"
}

# install_project NAME EXTRAS PIP-ARGUMENT...: editable, so that only changes of what is compiled, or
# a new Python file, need another install. The stamp of what was installed last is kept per NAME.
install_project() {
    local stamp=$venv/stamp-$1 extras=$2 hash
    shift 2
    make_venv
    hash=$("$venv/bin/python" "$root/scripts/_stamp.py" "$extras" "$@")
    if [[ -f $stamp && $(<"$stamp") == "$hash" ]]; then
        return
    fi
    find_compiler CC C cc gcc clang
    find_compiler CXX C++ c++ g++ clang++
    step "Building and installing ggml-concurrent (a minute or two the first time)" \
        "$venv/bin/python" -m pip install --disable-pip-version-check --editable "${root}[$extras]" \
        --config-settings=build-dir="$root/build/editable" "$@"
    printf '%s' "$hash" >"$stamp"
}
