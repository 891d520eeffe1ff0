# Sourced by scripts/test: builds llama-cpp-python, which the tests of the drop-in run in, into
# build/runner. It takes some minutes, so it goes on beside everything else; the tests wait for it.
# shellcheck shell=bash

runner=$root/build/runner
runner_pid=

stop_runner() {
    [[ -z $runner_pid ]] || kill -- "-$runner_pid" 2>/dev/null || true
}

# Ends with $runner.done or $runner.failed, whatever happens.
build_runner() {
    local wanted=$1 pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-deps
                         --target "$runner")
    rm -rf "$runner"
    # gcc 12 breaks AMX: not for this machine's processor, but for the usual ones
    if CMAKE_ARGS="-DGGML_NATIVE=OFF" "${pip[@]}" --no-binary llama-cpp-python \
            --require-hashes -r "$root/tests/runner.txt" &&
        "${pip[@]}" typing-extensions diskcache jinja2 MarkupSafe; then
        printf '%s' "$wanted" >"$runner.done"
    else
        touch "$runner.failed"
    fi
}

start_runner() {
    local wanted
    [[ $(uname -s) == Linux ]] || return 0  # the drop-in is for Linux, and so are its tests
    wanted=$("$venv/bin/python" -V; cat "$root/tests/runner.txt")
    export GGC_RUNNER_DIR=$runner
    if [[ -f $runner.done && $(<"$runner.done") == "$wanted" ]]; then
        return
    fi
    mkdir -p "${runner%/*}"
    rm -f "$runner.done" "$runner.failed"
    set -m  # a process group of its own, so that an end ends the compilers too
    nice -n 19 bash -c "$(declare -f build_runner); root=$(printf %q "$root") \
        venv=$(printf %q "$venv") runner=$(printf %q "$runner"); \
        build_runner $(printf %q "$wanted")" >"$runner.log" 2>&1 </dev/null &
    runner_pid=$!
    set +m
    trap stop_runner EXIT
}
