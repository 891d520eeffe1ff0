"""BERT: an encoder, which reads a whole text at once and keeps no cache."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..models.config import Config, Keys, read_config
from ..models.layers import flash_attention, plain_attention
from ..tensor import Tensor
from .blocks import gelu_mlp, layer_norm, project, query_key_value
from .builder import Builder
from .workload import Entry

_TOKEN_TYPES = 2  # a text is of the first type, the second of a pair of texts is of the other


def bert(b: Builder, metadata: Mapping[str, Any]) -> None:
    """The output `embeddings`: ne (width, tokens) of a text of n_tokens tokens."""
    g, config = b.g, read_config(metadata, rms=False)
    eps = config.attention_layer_norm_epsilon
    x = layer_norm(b, "token_embd_norm", _embed(b, config, Keys(metadata)), eps)
    mask_type = "f16" if b.flash_attn else "f32"
    mask = b.input("mask", mask_type, np.zeros((b.n_tokens, b.n_tokens), np.float32))
    wanted = b.input("wanted", "i32", np.arange(b.n_tokens, dtype=np.int32))
    for i in range(config.block_count):
        blk = f"blk.{i}."
        y = _attention(b, blk, config, x, mask)
        if i == config.block_count - 1:
            y, x = g.get_rows(y, wanted), g.get_rows(x, wanted)
        x = layer_norm(b, f"{blk}attn_output_norm", g.add(y, x), eps)
        y = gelu_mlp(b, blk, x, config.feed_forward_length)
        x = layer_norm(b, f"{blk}layer_output_norm", g.add(y, x), eps)
    b.output(x, "embeddings")


def _embed(b: Builder, config: Config, keys: Keys) -> Tensor:
    """Each token's embedding plus those of its type and its position."""
    g, width, n_vocab = b.g, config.embedding_length, keys.integer("vocab_size")
    tokens = b.ids("tokens", b.n_tokens, n_vocab)
    positions = b.input("positions", "i32", np.arange(b.n_tokens, dtype=np.int32))
    x = g.expand(g.get_rows(b.table("token_embd.weight", width, n_vocab), tokens))
    types = b.table("token_types.weight", width, _TOKEN_TYPES, "f32")
    x = g.add(x, g.view_1d(types, width, offset=0))
    places = b.table("position_embd.weight", width, config.context_length, "f32")
    return g.add(g.get_rows(places, positions), x)


def _attention(b: Builder, blk: str, config: Config, x: Tensor, mask: Tensor) -> Tensor:
    g, length, heads = b.g, config.attention_key_length, config.attention_head_count
    parts = query_key_value(b, blk, x, length, heads, heads, bias=True)
    q, k, v = (g.expand(part) for part in parts)
    k, v = g.permute(k, 0, 2, 1, 3), g.permute(v, 0, 2, 1, 3)
    scale = 1.0 / math.sqrt(length)
    if b.flash_attn:
        out = flash_attention(g, q, g.cast(k, "f16"), g.cast(v, "f16"), mask, scale)
    else:
        out = plain_attention(g, q, k, g.cont(g.transpose(v)), mask, scale)
    g.expand(out)
    return project(b, f"{blk}attn_output", out, config.embedding_length, bias=True)


def _metadata(layers: int, width: int, hidden: int, heads: int, vocab: int) -> dict[str, Any]:
    keys = {
        "block_count": layers,
        "embedding_length": width,
        "feed_forward_length": hidden,
        "attention.head_count": heads,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.causal": False,
        "context_length": 512,
        "vocab_size": vocab,
    }
    return {
        "general.architecture": "bert",
        **{f"bert.{k}": v for k, v in keys.items()},
        "tokenizer.ggml.token_type_count": _TOKEN_TYPES,
    }


ENTRIES = [
    Entry("bert-base", "BERT base", bert, _metadata(12, 768, 3072, 12, 30522), n_tokens=64),
    Entry("bert-large", "BERT large", bert, _metadata(24, 1024, 4096, 16, 30522), n_tokens=64),
    Entry("bert-tiny", "for tests", bert, _metadata(3, 64, 96, 4, 300), "f32", 5),
]
