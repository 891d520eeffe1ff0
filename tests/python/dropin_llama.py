"""Computes with llama-cpp-python in many situations; prints a hash of all logits of each.

    python dropin_llama.py REQUEST

REQUEST is JSON: `site`, the folder with llama_cpp; `held`, whether the drop-in has hold of it;
`models`, a list of {"path", "cases", "adapters"}; `server`, the address of an RPC server that has
the last `n_layers` layers, asked for before the drop-in takes hold if `early`; `simulated`, the
folder with a simulated CUDA, of which `n_devices` are used, and all but the operation `refused`;
`faults`, calls of the driver that then fail once each, while short prompts are computed; `failing`,
one whose first call fails.
What is printed is JSON as well: digests by model and case, and what the drop-in and the simulation
say. Run as a program by test_dropin_llama.py, with and without the drop-in: the digests must be
equal.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

lc: Any = None  # llama_cpp, once its folder is known
HELD = False
Q8_0 = 8
CASES: dict[str, Callable[[Model], str]] = {}


def case(function: Callable[[Model], str]) -> Callable[[Model], str]:
    CASES[function.__name__] = function
    return function


class Model:
    def __init__(self, path: str, adapters: list[str], elsewhere: Elsewhere | None = None) -> None:
        self.elsewhere = elsewhere
        parameters = lc.llama_model_default_params()
        parameters.n_gpu_layers = 999  # all of it, where there is a GPU
        if elsewhere:
            parameters.devices = ctypes.cast(elsewhere.devices, ctypes.c_void_p)
            parameters.n_gpu_layers = elsewhere.n_layers
        self.path = path
        self.pointer = lc.llama_model_load_from_file(path.encode(), parameters)
        assert self.pointer, f"{path} was not loaded"
        self.n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(self.pointer))
        self.adapters = [lc.llama_adapter_lora_init(self.pointer, a.encode()) for a in adapters]

    def free(self) -> None:
        lc.llama_model_free(self.pointer)


class Elsewhere:
    """Devices that models are put on instead of those that llama.cpp would choose."""

    def __init__(self, devices: list[int], n_layers: int = 999) -> None:
        self.devices = (ctypes.c_void_p * (len(devices) + 1))(*devices, None)
        self.n_layers = n_layers


def runners_library(name: str) -> ctypes.CDLL:
    """A library of ggml's that is loaded, whose functions others may use from now on."""
    path = Path(lc.__file__).parent / "lib" / f"lib{name}.so.0"
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def served(endpoint: str, n_layers: int) -> Elsewhere:
    """The last layers on a server."""
    ggml, rpc = runners_library("ggml"), runners_library("ggml-rpc")
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    ggml.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    registry = ctypes.c_void_p(rpc.ggml_backend_rpc_add_server(endpoint.encode()))
    assert registry, f"nobody answers at {endpoint}"
    ggml.ggml_backend_register(registry)
    return Elsewhere([ggml.ggml_backend_reg_dev_get(registry, ctypes.c_size_t(0))], n_layers)


class Simulated(Elsewhere):
    """All layers on devices of the simulated CUDA (tests/cuda)."""

    def __init__(self, folder: Path, n_devices: int, refused: str = "") -> None:
        _, ggml = runners_library("ggml-base"), runners_library("ggml")
        self.driver = ctypes.CDLL(str(folder / "libcuda.so.1"))
        module = folder / "libggml-cuda-sim.so"
        ggml.ggml_backend_load.restype = ggml.ggml_backend_dev_by_name.restype = ctypes.c_void_p
        assert ggml.ggml_backend_load(str(module).encode())
        self.sim = ctypes.CDLL(str(module))
        self.sim.sim_seed(ctypes.c_uint64(1))
        self.sim.sim_refuse_op(refused.encode())
        self.driver.fake_delay(5)  # microseconds
        names = [f"CUDA{i}".encode() for i in range(n_devices)]
        super().__init__([ggml.ggml_backend_dev_by_name(name) for name in names])

    def report(self) -> dict[str, Any]:
        """What went wrong, and how often CUDA graphs were launched."""
        self.sim.sim_races.restype = self.sim.sim_errors.restype = ctypes.c_uint64
        self.sim.sim_first_race.restype = self.sim.sim_first_error.restype = ctypes.c_char_p
        self.driver.fake_calls.restype = self.sim.sim_instances_made.restype = ctypes.c_uint64
        return {
            "instances": self.sim.sim_instances_made(),
            "races": [self.sim.sim_races(), self.sim.sim_first_race().decode()],
            "errors": [self.sim.sim_errors(), self.sim.sim_first_error().decode()],
            "launches": self.driver.fake_calls(b"cuGraphLaunch"),
            "graphs": self.driver.fake_calls(b"cuGraphInstantiateWithFlags"),
            "updates": self.driver.fake_calls(b"cuGraphExecUpdate_v2"),
        }


class Context:
    """A context, and a hash of all logits that it has given."""

    def __init__(self, model: Model, **parameters: Any) -> None:
        wanted = lc.llama_context_default_params()
        defaults = {
            "n_ctx": 512, "n_batch": 512, "n_ubatch": 512, "n_threads": 2, "n_threads_batch": 2,
            "flash_attn_type": 0, "no_perf": True,
        }  # fmt: skip
        for key, value in (defaults | parameters).items():
            setattr(wanted, key, value)
        self.model = model
        self.keep = parameters  # callbacks are called for as long as it lives
        self.pointer = lc.llama_init_from_model(model.pointer, wanted)
        assert self.pointer, "no context"
        self.embeddings = bool(wanted.embeddings)
        self.hash = hashlib.sha256()
        self.set_adapters(len(model.adapters))

    def set_adapters(self, n: int) -> None:
        adapters = self.model.adapters[:n]
        array = (lc.llama_adapter_lora_p_ctypes * max(n, 1))(*adapters)
        scales = (ctypes.c_float * max(n, 1))(*([1.0] * n))
        assert lc.llama_set_adapters_lora(self.pointer, array, n, scales) == 0

    def decode(self, tokens: list[int], positions: list[int], sequences: list[int]) -> int:
        """All at once; 0, or why not. The logits of each sequence's last token are wanted."""
        batch = lc.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, positions[i]
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequences[i]
            last = sequences[i] not in sequences[i + 1 :]
            batch.logits[i] = last or self.embeddings
        code = lc.llama_decode(self.pointer, batch)
        lc.llama_batch_free(batch)
        return code

    def take(self, row: int) -> int:
        """Adds a row of logits (or embeddings) to the hash; the likeliest token."""
        if self.embeddings:
            values = lc.llama_get_embeddings_ith(self.pointer, row)
            n = lc.llama_model_n_embd(self.model.pointer)
        else:
            values, n = lc.llama_get_logits_ith(self.pointer, row), self.model.n_vocab
        array = np.ctypeslib.as_array(values, shape=(n,))
        assert np.isfinite(array).all()
        self.hash.update(array.tobytes())
        return int(array.argmax())

    def prompt(self, n: int, seed: int = 1, start: int = 0, sequence: int = 0) -> int:
        rng = np.random.default_rng(seed)
        tokens = rng.integers(1, self.model.n_vocab, n).tolist()
        step = lc.llama_n_batch(self.pointer)
        for i in range(0, n, step):
            part = tokens[i : i + step]
            at = list(range(start + i, start + i + len(part)))
            assert self.decode(part, at, [sequence] * len(part)) == 0
        return self.take(-1)

    def steps(self, token: int, start: int, n: int, sequence: int = 0) -> int:
        for i in range(n):
            assert self.decode([token], [start + i], [sequence]) == 0
            token = self.take(-1)
        return token

    def end(self) -> str:
        lc.llama_free(self.pointer)
        return self.hash.hexdigest()


def joined(*digests: str) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def generate_from(context: Context, n_prompt: int, n: int = 6, seed: int = 1) -> str:
    context.steps(context.prompt(n_prompt, seed), n_prompt, n)
    return context.end()


def generate(model: Model, n_prompt: int, n: int = 4, **parameters: Any) -> str:
    return generate_from(Context(model, **parameters), n_prompt, n)


@case
def short_prompts(model: Model) -> str:
    return joined(generate(model, 1, 6), generate(model, 7, 6))


@case
def other_tokens(model: Model) -> str:
    """As long as short_prompts, so that whoever looks sees that a hash tells tokens apart."""
    return joined(*(generate_from(Context(model), n, seed=2) for n in (1, 7)))


@case
def prompt_of_300(model: Model) -> str:
    return generate(model, 300)


@case
def prompt_of_2000(model: Model) -> str:
    return generate(model, 2000, n_ctx=2304)


@case
def small_batches(model: Model) -> str:
    return joined(generate(model, 100, n_ubatch=32), generate(model, 100, n_batch=24, n_ubatch=24))


@case
def flash_attention(model: Model) -> str:
    return joined(generate(model, 20, flash_attn_type=1), generate(model, 1, flash_attn_type=1))


@case
def quantised_cache(model: Model) -> str:
    return generate(model, 20, flash_attn_type=1, type_k=Q8_0, type_v=Q8_0)


@case
def one_thread(model: Model) -> str:
    return generate(model, 20, n_threads=1, n_threads_batch=1)


@case
def threads_change(model: Model) -> str:
    context = Context(model)
    token = context.prompt(9)
    for i, n in enumerate((1, 2, 4, 1, 2)):
        lc.llama_set_n_threads(context.pointer, n, n)
        token = context.steps(token, 9 + 2 * i, 2)
    return context.end()


@case
def many_tokens(model: Model) -> str:
    """Enough of them for ways to be timed and one to be chosen."""
    return generate(model, 5, 320, n_ctx=512)


@case
def growing_cache(model: Model) -> str:
    """Over the size of the cache at which llama.cpp builds its graph anew."""
    return generate(model, 250, 12)


@case
def context_shift(model: Model) -> str:
    context = Context(model, n_ctx=256)
    memory = lc.llama_get_memory(context.pointer)
    token = context.steps(context.prompt(200), 200, 2)
    if lc.llama_memory_can_shift(memory):
        lc.llama_memory_seq_rm(memory, 0, 4, 100)
        lc.llama_memory_seq_add(memory, 0, 100, -1, -96)
        context.steps(token, 106, 6)
    else:
        context.steps(token, 202, 6)
    return context.end()


@case
def several_contexts(model: Model) -> str:
    contexts = [Context(model, n_ctx=256) for _ in range(3)]
    tokens = [c.prompt(5 + i, seed=i) for i, c in enumerate(contexts)]
    for step in range(4):
        for i, context in enumerate(contexts):
            tokens[i] = context.steps(tokens[i], 5 + i + step, 1)
    return joined(*(context.end() for context in contexts))


@case
def several_threads(model: Model) -> str:
    digests = [""] * 3

    def work(number: int) -> None:
        digests[number] = joined(*(generate(model, 6 + number, 8, n_ctx=256) for _ in range(2)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return joined(*digests)


@case
def several_sequences(model: Model) -> str:
    digests = []
    for n, together in ((2, False), (4, True), (16, False)):
        context = Context(model, n_seq_max=n, n_ctx=64 * n, kv_unified=together)
        tokens = [context.prompt(3, seed=s, sequence=s) for s in range(n)]
        for i in range(3):
            assert context.decode(tokens, [3 + i] * n, list(range(n))) == 0
            tokens = [context.take(row) for row in range(n)]
        digests.append(context.end())
    return joined(*digests)


@case
def state_saved_and_restored(model: Model) -> str:
    first = Context(model, n_ctx=256)
    token = first.steps(first.prompt(20), 20, 2)
    size = lc.llama_state_get_size(first.pointer)
    state = (ctypes.c_uint8 * size)()
    n = lc.llama_state_get_data(first.pointer, state, size)
    assert n > 0
    first.hash.update(bytes(state)[:n])
    second = Context(model, n_ctx=256)
    assert lc.llama_state_set_data(second.pointer, state, size) > 0
    assert first.steps(token, 22, 4) == second.steps(token, 22, 4)
    return joined(first.end(), second.end())


@case
def loaded_again(model: Model) -> str:
    other = Model(model.path, [], model.elsewhere)
    digest = generate(other, 5)
    other.free()
    again = Model(model.path, [], model.elsewhere)
    digest = joined(digest, generate(again, 5))
    again.free()
    return digest


@case
def aborted(model: Model) -> str:
    stop = [False]
    asked = [0]

    def ask(_: Any) -> bool:
        asked[0] += 1
        return stop[0]

    context = Context(model)
    callback = lc.ggml_abort_callback(ask)
    lc.llama_set_abort_callback(context.pointer, callback, None)
    token = context.prompt(8)
    assert asked[0] > 0
    stop[0] = True
    assert context.decode([token], [8], [0]) == 2, "stopped"
    stop[0] = False
    memory = lc.llama_get_memory(context.pointer)
    lc.llama_memory_seq_rm(memory, 0, 8, -1)
    token = context.steps(token, 8, 3)
    lc.llama_set_abort_callback(context.pointer, ctypes.cast(None, lc.ggml_abort_callback), None)
    context.steps(token, 11, 3)
    return context.end()


@case
def watched(model: Model) -> str:
    """An eval callback sees the same values, and of the same tensors."""
    ggml = ctypes.CDLL(str(next(Path(lc.__file__).parent.glob("lib/libggml-base.so"))))
    ggml.ggml_nbytes.restype, ggml.ggml_nbytes.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    values = hashlib.sha256()
    asked, seen = [0], [0]

    @lc.ggml_backend_sched_eval_callback
    def watch(tensor: Any, ask: bool, data: Any) -> bool:
        if ask:
            asked[0] += 1
            return asked[0] % 40 == 0
        address = ctypes.cast(tensor, ctypes.c_void_p)
        size = ggml.ggml_nbytes(address)
        copy = ctypes.create_string_buffer(size)
        ggml.ggml_backend_tensor_get(address, copy, ctypes.c_size_t(0), ctypes.c_size_t(size))
        values.update(copy.raw)
        seen[0] += 1
        return True

    context = Context(model, cb_eval=watch)
    context.steps(context.prompt(8), 8, 3)
    assert seen[0] > 0
    return joined(context.end(), values.hexdigest(), str(asked[0]))


@case
def embeddings(model: Model) -> str:
    return generate(model, 12, 0, embeddings=True, pooling_type=0)


@case
def pooled(model: Model) -> str:
    """One embedding for each sequence."""
    context = Context(model, embeddings=True, pooling_type=1, n_seq_max=2, kv_unified=True)
    rng = np.random.default_rng(3)
    tokens = rng.integers(1, model.n_vocab, 9).tolist()
    assert context.decode(tokens, [0, 1, 2, 3, 4, 0, 1, 2, 3], [0] * 5 + [1] * 4) == 0
    n = lc.llama_model_n_embd(model.pointer)
    for sequence in range(2):
        values = lc.llama_get_embeddings_seq(context.pointer, sequence)
        context.hash.update(np.ctypeslib.as_array(values, shape=(n,)).tobytes())
    return context.end()


@case
def encoded(model: Model) -> str:
    """What an encoder makes of texts of several lengths, with and without flash attention."""
    digests = []
    for flash in (0, 1):
        context = Context(model, embeddings=True, pooling_type=0, flash_attn_type=flash)
        for n in (12, 1, 200, 12):
            context.prompt(n)
        digests.append(context.end())
    return joined(*digests)


@case
def adapters_change(model: Model) -> str:
    context = Context(model)
    token = context.prompt(6)
    for i in range(len(model.adapters) + 1):
        context.set_adapters(i)
        token = context.steps(token, 6 + 4 * i, 4)
    return context.end()


@case
def held_and_let_go(model: Model) -> str:
    """Contexts made before, between and after; without the drop-in they are simply contexts."""
    import ggml_concurrent as ggc

    held = Context(model, n_ctx=256)
    token = held.steps(held.prompt(6), 6, 3)
    if HELD:
        ggc.detach()
    free = Context(model, n_ctx=256)
    free.steps(free.prompt(6), 6, 3)
    token = held.steps(token, 9, 3)
    if HELD:
        ggc.attach(quiet=True)
    again = Context(model, n_ctx=256)
    again.steps(again.prompt(6), 6, 3)
    held.steps(token, 12, 3)
    return joined(held.end(), free.end(), again.end())


@case
def forked(model: Model) -> str:
    """The child makes a context of its own, with one thread: OpenMP's are not there."""
    context = Context(model, n_ctx=256)
    token = context.prompt(6)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        digest = generate(model, 5, n_ctx=256, n_threads=1, n_threads_batch=1)
        os.write(writing, digest.encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    digest = os.read(reading, 64).decode()
    context.steps(token, 6, 3)
    return joined(context.end(), digest)


@case
def left_alive(model: Model) -> str:
    """Nobody frees it; the process ends all the same."""
    context = Context(model, n_ctx=256)
    context.steps(context.prompt(6), 6, 3)
    LEFT.append(context)
    return context.hash.hexdigest()


LEFT: list[Context] = []
BUSY = threading.Event()


def decode_for_ever(model: Model) -> None:
    while True:
        generate(model, 5, 20, n_ctx=256)
        BUSY.set()


def main() -> int:
    global lc, HELD
    request = json.loads(sys.argv[1])
    sys.path.append(request["site"])
    import llama_cpp

    import ggml_concurrent as ggc

    lc, HELD = llama_cpp, request["held"]
    lc.llama_log_set(SILENT, None)
    server, elsewhere = request.get("server"), None
    if "simulated" in request:
        folder, n_devices = Path(request["simulated"]), request["n_devices"]
        elsewhere = Simulated(folder, n_devices, request["refused"])
        if request["failing"]:
            elsewhere.driver.fake_fail(request["failing"].encode(), 1, 910)
    if server and request["early"]:
        elsewhere = served(server, request["n_layers"])
    if HELD:
        assert ggc.attach(quiet=True).held
    lc.llama_backend_init()
    if server and not request["early"]:
        elsewhere = served(server, request["n_layers"])
    digests: dict[str, dict[str, str]] = {}
    for entry in request["models"]:
        model = Model(entry["path"], entry.get("adapters", []), elsewhere)
        digests[entry["name"]] = {name: CASES[name](model) for name in entry["cases"]}
        for call in request.get("faults", []):
            assert isinstance(elsewhere, Simulated)
            elsewhere.driver.fake_fail(call.encode(), 1, 999)
            digests[entry["name"]][call] = short_prompts(model)
    gc.collect()
    devices = [
        {
            key: getattr(d, key)
            for key in (
                *("name", "reason", "backends", "live"),
                *("graphs", "on_streams", "plans", "failures", "own_us"),
            )
        }
        | {"last_plan": vars(d.last_plan) if hasattr(d.last_plan, "__dict__") else {}}
        for host in ggc.attachment().hosts
        if not host.ours
        for d in host.devices
    ]
    simulation = elsewhere.report() if isinstance(elsewhere, Simulated) else None
    answer = {"digests": digests, "devices": devices, "simulation": simulation}
    print(json.dumps(answer), flush=True)
    if request.get("abruptly") == "decoding":
        threading.Thread(target=decode_for_ever, args=(model,), daemon=True).start()
        BUSY.wait()
    if request.get("abruptly"):
        os._exit(0)
    return 0


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def SILENT(level: int, text: bytes, data: Any) -> None:  # noqa: N802  a callback kept for ever
    if level == 4:  # errors
        sys.stderr.write(text.decode("utf-8", "replace"))


if __name__ == "__main__":
    sys.exit(main())
