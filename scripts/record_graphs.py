#!/usr/bin/env python3
"""Record the graphs that llama.cpp builds for tiny models of the zoo: tests/python/data/graphs.

  python3 -m venv /tmp/reference
  /tmp/reference/bin/pip install llama-cpp-python==0.3.36
  .venv/bin/python scripts/record_graphs.py --llama-python /tmp/reference/bin/python [NAME...]

The weights of each tiny graph of the zoo are written to a GGUF file; llama-cpp-python loads it,
evaluates the tokens, and reports through its eval callback each node's operation and shape, and the
logits at the end. tests/python/test_zoo_llama.py compares the zoo's graph with that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

from graph_cases import CASES, TARGET, tokens_of, write_model  # noqa: E402 - no package


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases (default: all)")
    parser.add_argument(
        "--llama-python", required=True, metavar="PYTHON", help="interpreter with llama_cpp"
    )
    options = parser.parse_args()
    TARGET.mkdir(exist_ok=True)
    for name in options.names or CASES:
        document = record(name, options.llama_python)
        path = TARGET / f"{name}.json"
        path.write_text(compact(document), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {[len(p['nodes']) for p in document['passes']]} nodes")
    return 0


def record(name: str, python: str) -> dict:
    """What llama.cpp computes for the passes of one case."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        model, adapters = write_model(name, Path(folder))
        request = {
            "model": str(model),
            "flash_attn": case.flash_attn,
            "embeddings": case.embeddings,
            "adapters": adapters,
            "passes": [tokens_of(name, n_past, n) for n_past, n in case.passes],
        }
        program = [python, "-c", PROGRAM, json.dumps(request)]
        result = subprocess.run(program, check=False, capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"{name}: {result.stderr[-3000:]}")
        return json.loads(result.stdout.splitlines()[-1])


def compact(document: dict) -> str:
    """JSON with a node a line."""
    passes = []
    for p in document["passes"]:
        nodes = ",\n".join("    " + json.dumps(node) for node in p["nodes"])
        logits = json.dumps([float(np.float32(x)) for x in p["logits"]])
        passes.append(
            f'  {{"n_past": {p["n_past"]}, "n_tokens": {p["n_tokens"]}, "nodes": [\n{nodes}\n  ],\n'
            f'  "logits": {logits}}}'
        )
    return (
        f'{{"runner": {json.dumps(document["runner"])}, "passes": [\n'
        + ",\n".join(passes)
        + "\n]}\n"
    )


# One pass: the tokens before are evaluated unwatched, then those whose graph is recorded.
PROGRAM = r"""
import ctypes, json, sys
import llama_cpp as lc

request = json.loads(sys.argv[1])

class Tensor(ctypes.Structure):  # the head of struct ggml_tensor
    _fields_ = [("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4),
                ("nb", ctypes.c_size_t * 4), ("op", ctypes.c_int)]

base = lc.llama_cpp._lib if hasattr(lc.llama_cpp, "_lib") else None
from pathlib import Path
libs = sorted(Path(lc.__file__).parent.glob("lib/libggml-base*"))
ggml = ctypes.CDLL(str(libs[0]))
ggml.ggml_op_desc.restype = ctypes.c_char_p
ggml.ggml_op_desc.argtypes = [ctypes.c_void_p]

nodes, watching = [], False

@lc.ggml_backend_sched_eval_callback
def seen(pointer, ask, data):
    if ask and watching:
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        t = Tensor.from_address(address)
        nodes.append([ggml.ggml_op_desc(address).decode(), list(t.ne)])
    return not ask

lc.llama_backend_init()
mp = lc.llama_model_default_params()
mp.use_mmap = False
model = lc.llama_model_load_from_file(request["model"].encode(), mp)
assert model, "the model was not loaded"
passes = []
for p in request["passes"]:
    cp = lc.llama_context_default_params()
    cp.n_ctx, cp.n_batch, cp.n_ubatch = 256, 256, 256
    cp.n_threads = cp.n_threads_batch = 1
    cp.flash_attn_type = 1 if request["flash_attn"] else 0
    cp.embeddings = request["embeddings"]
    cp.no_perf = True
    cp.cb_eval = seen
    if request["embeddings"]:
        cp.pooling_type = 0
    ctx = lc.llama_init_from_model(model, cp)
    assert ctx, "no context"
    adapters = [lc.llama_adapter_lora_init(model, a.encode()) for a in request["adapters"]]
    if adapters:
        array = (lc.llama_adapter_lora_p_ctypes * len(adapters))(*adapters)
        scales = (ctypes.c_float * len(adapters))(*([1.0] * len(adapters)))
        assert lc.llama_set_adapters_lora(ctx, array, len(adapters), scales) == 0
    for ids, first, watching in ((p["past"], 0, False), (p["tokens"], len(p["past"]), True)):
        if not ids:
            continue
        batch = lc.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i] = token, first + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = request["embeddings"] or i == len(ids) - 1
        nodes.clear()
        call = lc.llama_encode if request["embeddings"] else lc.llama_decode
        code = call(ctx, batch)
        assert code == 0, f"decode: {code}"
    if request["embeddings"]:
        out = lc.llama_get_embeddings_ith(ctx, 0)
        n = lc.llama_model_n_embd(model)
    else:
        out = lc.llama_get_logits_ith(ctx, -1)
        n = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    passes.append({"n_past": len(p["past"]), "n_tokens": len(p["tokens"]), "nodes": list(nodes),
                   "logits": out[:n]})
    watching = False
    lc.llama_free(ctx)
print(json.dumps({"runner": f"llama-cpp-python {lc.__version__}", "passes": passes}))
"""

if __name__ == "__main__":
    sys.exit(main())
