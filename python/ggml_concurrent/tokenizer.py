"""Text to token ids and back, for the SentencePiece vocabularies that GGUF files carry.

The `sentencepiece` package does the work on a model made from the GGUF's own vocabulary, so no
second file is needed. Results are those of llama.cpp's tokenizer for the same file:

1. user-defined tokens are cut out of the text first, longest first;
2. what is left between them is merged piece by piece, best score first, where every token of the
   vocabulary may come out (SentencePiece itself would keep control tokens apart);
3. what no token covers becomes byte tokens.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .errors import Error, FormatError

# Kinds of tokens, as numbered by both SentencePiece and GGUF.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

#: Tokens that end a text whatever kind the file gives them (converters mislabel some).
END_MARKERS = frozenset(
    "</s> <eos> <EOT> [EOT] [EOS] <end_of_turn> <end_of_utterance> <|eot_id|> <|eom_id|> "
    "<|end|> <|im_end|> <|end_of_text|> <|endoftext|>".split()
)

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for a space inside tokens


class Tokenizer:
    """The tokenizer of a GGUF file, from its metadata.

    metadata: the file's key/value pairs (`GGUF.metadata`); read during construction only.
    Raises FormatError when the vocabulary is of another kind than SentencePiece ("llama") or
    damaged, and Error when the `sentencepiece` package is missing.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        kind = metadata.get("tokenizer.ggml.model")
        if kind != "llama":
            raise FormatError(
                f'expected a SentencePiece vocabulary (tokenizer.ggml.model "llama"), got {kind!r}'
            )
        self.tokens: list[str] = _required(metadata, "tokens")
        self.kinds: list[int] = _kinds(self.tokens, metadata)
        self.bos = int(metadata.get("tokenizer.ggml.bos_token_id", 1))
        self.eos = int(metadata.get("tokenizer.ggml.eos_token_id", 2))
        self.unknown = int(metadata.get("tokenizer.ggml.unknown_token_id", 0))
        self.add_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", True))
        self.add_eos = bool(metadata.get("tokenizer.ggml.add_eos_token", False))
        self.add_space_prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
        self._check_ids()

        self.ends = {self.eos} | {i for i, token in enumerate(self.tokens) if token in END_MARKERS}
        self._user_defined = self._sorted_user_defined()
        scores = _required(metadata, "scores")
        if len(scores) != len(self.tokens):
            raise FormatError(f"{len(self.tokens)} tokens but {len(scores)} scores")
        self._processor = _processor(self.tokens, scores, self.kinds, self.unknown)

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of `text`; with `special` the begin and end tokens that the model asks for.

        Control tokens written out in the text are treated as plain text.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Error(f"the text is not valid Unicode: {error}") from None
        ids = [self.bos] if special and self.add_bos else []
        at_start = True  # of the text, or after a user-defined token
        for part in self._split(text):
            if isinstance(part, int):
                ids.append(part)
                at_start = True
            else:
                prefix = " " if self.add_space_prefix and at_start else ""
                ids.extend(self._processor.encode(prefix + part))
                at_start = False
        if special and self.add_eos:
            ids.append(self.eos)
        return ids

    def piece(self, token: int) -> bytes:
        """The bytes that `token` stands for: not always whole characters, none for controls."""
        kind, text = self.kinds[token], self.tokens[token]
        if kind == BYTE:
            return bytes([int(text[3:5], 16)])
        if kind == USER_DEFINED:
            return text.encode("utf-8")
        if kind == NORMAL:
            return text.replace(SPACE, " ").encode("utf-8")
        return b""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; bytes that form no character become U+FFFD."""
        return b"".join(map(self.piece, ids)).decode("utf-8", errors="replace")

    def stream(self) -> Detokenizer:
        """A decoder for ids that come one by one."""
        return Detokenizer(self)

    def _check_ids(self) -> None:
        for name in ("bos", "eos", "unknown"):
            value = getattr(self, name)
            if not 0 <= value < len(self.tokens):
                raise FormatError(
                    f"{name} token id {value} is outside the vocabulary of {len(self.tokens)}"
                )

    def _sorted_user_defined(self) -> list[tuple[str, int]]:
        found = [
            (token, i)
            for i, (token, kind) in enumerate(zip(self.tokens, self.kinds, strict=True))
            if kind == USER_DEFINED and token
        ]
        # Longest in bytes first, as llama.cpp cuts them out.
        return sorted(found, key=lambda pair: -len(pair[0].encode("utf-8")))

    def _split(self, text: str) -> list[str | int]:
        """The text with user-defined tokens cut out: ids where they stood, text between them."""
        parts: list[str | int] = [text] if text else []
        for token, number in self._user_defined:
            if token in text:
                parts = [piece for part in parts for piece in _cut(part, token, number)]
        return parts


class Detokenizer:
    """Turns ids into text as they come, and never gives out half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that `token` completes: may be empty, its bytes are then kept for later."""
        return self._decoder.decode(self._tokenizer.piece(token))

    def finish(self) -> str:
        """What is left at the end: U+FFFD if it is half a character."""
        return self._decoder.decode(b"", final=True)


def _required(metadata: Mapping[str, Any], name: str) -> list[Any]:
    value = metadata.get("tokenizer.ggml." + name)
    if value is None or len(value) == 0:
        raise FormatError(f"the file has no tokenizer.ggml.{name}")
    return list(value)


def _kinds(tokens: list[str], metadata: Mapping[str, Any]) -> list[int]:
    kinds = metadata.get("tokenizer.ggml.token_type")
    if kinds is None:
        return [NORMAL] * len(tokens)
    if len(kinds) != len(tokens):
        raise FormatError(f"{len(tokens)} tokens but {len(kinds)} token types")
    pairs = zip(tokens, kinds, strict=True)
    return [CONTROL if token in END_MARKERS else int(kind) for token, kind in pairs]


def _cut(part: str | int, token: str, number: int) -> Iterator[str | int]:
    """`part` with every `token` in it replaced by its id; ids pass through."""
    if isinstance(part, int):
        yield part
        return
    for i, text in enumerate(part.split(token)):
        if i > 0:
            yield number
        if text:
            yield text


def _processor(tokens: list[str], scores: list[float], kinds: list[int], unknown: int) -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise Error(
            "turning text into tokens needs the sentencepiece package: "
            "pip install ggml-concurrent[model]"
        ) from None
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model_proto(tokens, scores, kinds, unknown))
    except (RuntimeError, UnicodeEncodeError) as error:
        raise FormatError(f"sentencepiece refuses the file's vocabulary: {error}") from None
    return processor


#
# SentencePiece's ModelProto, written by hand: four messages need no protobuf library.
#


def model_proto(tokens: list[str], scores: list[float], kinds: list[int], unknown: int) -> bytes:
    """A serialised sentencepiece ModelProto with this vocabulary.

    Every token may come out of a merge, hence NORMAL; only byte tokens and the unknown one keep
    their kind. Text is taken as it is: no normalisation, no prefix, no whitespace removed.
    """
    out = bytearray()
    for i, (token, score, kind) in enumerate(zip(tokens, scores, kinds, strict=True)):
        given = UNKNOWN if i == unknown else BYTE if kind == BYTE else NORMAL
        text = token.encode("utf-8")
        piece = b"\x0a" + _varint(len(text)) + text + b"\x15" + struct.pack("<f", score)
        out += _message(1, piece + b"\x18" + bytes([given]))
    bytes_present = BYTE in kinds
    trainer = _field(3, 2) + _field(4, len(tokens)) + _field(35, int(bytes_present))
    trainer += _field(40, unknown)
    # The identity normaliser, which keeps spaces as they are and escapes them.
    normalizer = _message(1, b"identity") + _field(3, 0) + _field(4, 0) + _field(5, 1)
    return bytes(out) + _message(2, trainer) + _message(3, normalizer)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _message(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload
