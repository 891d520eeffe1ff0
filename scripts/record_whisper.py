#!/usr/bin/env python3
"""Record the graphs that whisper.cpp builds for a tiny model: tests/python/data/whisper.json.

  python3 -m venv /tmp/reference
  /tmp/reference/bin/pip install pywhispercpp==1.5.1
  .venv/bin/python scripts/record_whisper.py --whisper-python /tmp/reference/bin/python

The weights of the zoo's tiny Whisper are written to a file of whisper.cpp's; its encoder, which the
zoo does not have, gives the same frame at all times. A small library before whisper.cpp's ggml,
made with `cc`, reports each graph that is computed. tests/python/test_zoo_whisper.py compares.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))

from whisper_tiny import AUDIO_LAYERS, MELS, PASSES, TARGET, tensors, tokens  # noqa: E402

from ggml_concurrent import zoo  # noqa: E402 - after the path of tests/python

FORMAT, F16 = 0x67676D6C, 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--whisper-python", required=True, metavar="PYTHON", help="interpreter with pywhispercpp"
    )
    options = parser.parse_args()
    document = record(options.whisper_python)
    TARGET.write_text(compact(document), encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)}: {[len(g['decoder']) for g in document['passes']]} nodes")
    return 0


def record(python: str) -> dict:
    """What whisper.cpp computes in all passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hook.c").write_text(HOOK, encoding="utf-8")
        write_model(folder / "model.bin")
        found = subprocess.run([python, "-c", FIND], check=True, capture_output=True, text=True)
        libraries, version = found.stdout.split()
        compiler = ["cc", "-shared", "-fPIC", "-o", "hook.so", "hook.c"]
        subprocess.run([*compiler, f"{libraries}/libggml-base.so.0"], check=True, cwd=folder)
        environment = {
            **os.environ,
            "LD_PRELOAD": str(folder / "hook.so"),
            "LD_LIBRARY_PATH": libraries,
        }
        passes = []
        for flash_attn, n_past, n_tokens in PASSES:
            request = {
                "flash_attn": flash_attn,
                "mels": MELS,
                "past": tokens(0, n_past),
                "tokens": tokens(n_past, n_tokens),
            }
            program = [python, "-c", PROGRAM, f"{libraries}/libwhisper.so.1", json.dumps(request)]
            result = subprocess.run(
                program, check=False, cwd=folder, env=environment, capture_output=True, text=True
            )
            if result.returncode:
                sys.exit(result.stderr[-3000:])
            passes.append(
                {"flash_attn": flash_attn, "n_past": n_past, "n_tokens": n_tokens}
                | json.loads(result.stdout.splitlines()[-1])
            )
    return {"runner": f"whisper.cpp of pywhispercpp {version}", "passes": passes}


def compact(document: dict) -> str:
    """JSON with a node a line."""
    text = json.dumps(document)
    for start in ('["', '{"flash_attn"'):
        text = text.replace(f", {start}", f",\n{start}")
    return text + "\n"


def write_model(path: Path) -> None:
    """A file as whisper.cpp's own converter writes them."""
    p = zoo.GRAPHS["whisper-tiny"].parameters
    width, heads = p["n_text_state"], p["n_text_head"]
    audio = (p["n_audio_ctx"], width, heads, AUDIO_LAYERS)
    text = (p["n_text_ctx"], width, heads, p["n_text_layer"])
    with path.open("wb") as file:
        file.write(struct.pack("<I11i", FORMAT, p["n_vocab"], *audio, *text, MELS, F16))
        file.write(struct.pack("<2i", MELS, 1) + bytes(4 * MELS))  # the filters, unused
        file.write(struct.pack("<i", p["n_vocab"]))
        for i in range(p["n_vocab"]):
            word = f"t{i}".encode()
            file.write(struct.pack("<I", len(word)) + word)
        for name, array in tensors().items():
            kind = int(array.dtype == np.float16)
            file.write(struct.pack("<3i", array.ndim, len(name), kind))
            file.write(struct.pack(f"<{array.ndim}i", *reversed(array.shape)))
            file.write(name.encode() + array.tobytes())


HOOK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

extern int          ggml_graph_n_nodes(void * graph);
extern void *       ggml_graph_node(void * graph, int i);
extern const char * ggml_op_desc(const void * tensor);

struct head { // of struct ggml_tensor
    int     type;
    void *  buffer;
    int64_t ne[4];
};

int ggml_backend_sched_graph_compute(void * sched, void * graph) {
    int (*next)(void *, void *) =
        (int (*)(void *, void *)) dlsym(RTLD_NEXT, "ggml_backend_sched_graph_compute");
    FILE * file = fopen("graphs.txt", "a");
    fprintf(file, "-\n");
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        struct head * t = ggml_graph_node(graph, i);
        fprintf(file, "%s %d %d %d %d\n", ggml_op_desc(t), (int) t->ne[0], (int) t->ne[1],
                (int) t->ne[2], (int) t->ne[3]);
    }
    fclose(file);
    return next(sched, graph);
}
"""

FIND = r"""
import importlib.metadata, pathlib, _pywhispercpp
folder = pathlib.Path(_pywhispercpp.__file__).parent
print(folder, importlib.metadata.version("pywhispercpp"))
"""

# The graphs computed are: convolutions, encoder, cross attention, decoder for each decode call.
PROGRAM = r"""
import ctypes as C, json, os, sys

class Parameters(C.Structure):  # struct whisper_context_params
    _fields_ = [("use_gpu", C.c_bool), ("flash_attn", C.c_bool), ("gpu_device", C.c_int),
                ("dtw_token_timestamps", C.c_bool), ("dtw_aheads_preset", C.c_int),
                ("dtw_n_top", C.c_int), ("n_heads", C.c_size_t), ("heads", C.c_void_p),
                ("dtw_mem_size", C.c_size_t)]

whisper, request = C.CDLL(sys.argv[1]), json.loads(sys.argv[2])
if os.path.exists("graphs.txt"):
    os.remove("graphs.txt")
whisper.whisper_context_default_params_by_ref.restype = C.POINTER(Parameters)
parameters = whisper.whisper_context_default_params_by_ref().contents
parameters.use_gpu, parameters.flash_attn = False, request["flash_attn"]
whisper.whisper_init_from_file_with_params.restype = C.c_void_p
whisper.whisper_init_from_file_with_params.argtypes = [C.c_char_p, Parameters]
context = C.c_void_p(whisper.whisper_init_from_file_with_params(b"model.bin", parameters))
assert context, "the model was not loaded"
n_frames = 60
mel = (C.c_float * (n_frames * request["mels"]))()
assert whisper.whisper_set_mel(context, mel, n_frames, request["mels"]) == 0
assert whisper.whisper_encode(context, 0, 1) == 0
first = 0
for ids in (request["past"], request["tokens"]):
    if ids:
        assert whisper.whisper_decode(context, (C.c_int * len(ids))(*ids), len(ids), first, 1) == 0
    first += len(ids)
n_vocab = whisper.whisper_n_vocab(context)
whisper.whisper_get_logits.restype = C.POINTER(C.c_float)
end = len(request["tokens"]) * n_vocab
logits = whisper.whisper_get_logits(context)[end - n_vocab : end]
graphs = []
for line in open("graphs.txt"):
    if line == "-\n":
        graphs.append([])
    else:
        op, *ne = line.split()
        graphs[-1].append([op, *map(int, ne)])
print()
print(json.dumps({"cross": graphs[2], "decoder": graphs[-1], "logits": logits}))
"""

if __name__ == "__main__":
    sys.exit(main())
