# Sourced after _setup.sh: builds llama-cpp-python, which the drop-in is tested and measured in.
# shellcheck shell=bash disable=SC2154

# build_runner FOLDER CMAKE-ARGUMENTS: from source, so that what it is built with is known; not from
# pip's cache, which does not look at those arguments.
build_runner() {
    local folder=$1 pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-deps
                         --target "$1")
    rm -rf "$folder"
    CMAKE_ARGS=$2 "${pip[@]}" --no-cache-dir --no-binary llama-cpp-python --require-hashes \
        -r "$root/tests/runner.txt" &&
        "${pip[@]}" typing-extensions diskcache jinja2 MarkupSafe
}

# What FOLDER.done says of a build that need not be repeated.
runner_stamp() {
    "$venv/bin/python" -V
    cat "$root/tests/runner.txt"
    echo "$1"
}

runner=$root/build/runner
runner_pid=
# gcc 12 breaks AMX: not for this machine's processor, but for the usual ones
runner_arguments="-DGGML_NATIVE=OFF -DGGML_RPC=ON -DLLAVA_BUILD=OFF"

stop_runner() {
    [[ -z $runner_pid ]] || kill -- "-$runner_pid" 2>/dev/null || true
}

# For scripts/test: it takes some minutes, so it goes on beside everything else, and the tests wait
# for it. Ends with $runner.done or $runner.failed, whatever happens.
start_runner() {
    local wanted
    [[ $(uname -s) == Linux ]] || return 0  # the drop-in is for Linux, and so are its tests
    wanted=$(runner_stamp "$runner_arguments")
    export GGC_RUNNER_DIR=$runner
    if [[ -f $runner.done && $(<"$runner.done") == "$wanted" ]]; then
        return
    fi
    mkdir -p "${runner%/*}"
    rm -f "$runner.done" "$runner.failed"
    set -m  # a process group of its own, so that an end ends the compilers too
    nice -n 19 bash -c "$(declare -f build_runner); root=$(printf %q "$root")
        venv=$(printf %q "$venv") runner=$(printf %q "$runner") wanted=$(printf %q "$wanted")
        if build_runner \"\$runner\" $(printf %q "$runner_arguments"); then
            printf '%s' \"\$wanted\" >\"\$runner.done\"
        else
            touch \"\$runner.failed\"
        fi" >"$runner.log" 2>&1 </dev/null &
    runner_pid=$!
    set +m
    trap stop_runner EXIT
}
