"""Reads what the dynamic loader reads of a program: enough to say whether it can be reached."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from .errors import FormatError

__all__ = ["Elf", "read_elf"]

_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_NEEDED, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SONAME, _GNU_HASH = 1, 4, 5, 6, 10, 14, 0x6FFFFEF5
_MAX_SYMBOLS = 1 << 20


@dataclass(frozen=True)
class Elf:
    """A 64-bit little-endian ELF file.

    interpreter: the loader that starts it; "" for a library, or a program linked statically.
    needed: names of the libraries that it is linked with.
    exports, imports: symbols that others can reach, and that it takes from others.
    """

    path: Path
    is_dynamic: bool
    interpreter: str
    soname: str
    needed: tuple[str, ...]
    exports: frozenset[str]
    imports: frozenset[str]


class _Reader:
    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data
        self.segments: list[tuple[int, int, int, int]] = []  # type, offset, address, size

    def unpack(self, form: str, offset: int) -> tuple[int, ...]:
        size = struct.calcsize(form)
        if offset < 0 or offset + size > len(self.data):
            raise FormatError(f"{self.path}: the file ends early, or is damaged")
        return struct.unpack_from(form, self.data, offset)

    def text(self, offset: int) -> str:
        end = self.data.find(b"\0", offset)
        if offset < 0 or end < 0:
            raise FormatError(f"{self.path}: a name lies outside of the file")
        return self.data[offset:end].decode("utf-8", "replace")

    def read_segments(self) -> None:
        offset, size, n = *self.unpack("<Q", 32), *self.unpack("<HH", 54)
        for i in range(n):
            kind, _, at, address, _, length = self.unpack("<IIQQQQ", offset + i * size)
            self.segments.append((kind, at, address, length))

    def segment(self, kind: int) -> tuple[int, int] | None:
        """Where it lies in the file, and how long it is."""
        return next(((at, size) for k, at, _, size in self.segments if k == kind), None)

    def offset_of(self, address: int) -> int:
        for kind, at, start, size in self.segments:
            if kind == _LOAD and start <= address < start + size:
                return at + address - start
        raise FormatError(f"{self.path}: the address {address:#x} lies in no part of the file")

    def dynamic(self) -> dict[int, list[int]]:
        entries: dict[int, list[int]] = {}
        found = self.segment(_DYNAMIC)
        if found is not None:
            for offset in range(found[0], found[0] + found[1], 16):
                tag, value = self.unpack("<qQ", offset)
                if tag == 0:
                    break
                entries.setdefault(tag, []).append(value)
        return entries

    def count_symbols(self, entries: dict[int, list[int]]) -> int:
        if _HASH in entries:
            return self.unpack("<II", self.offset_of(entries[_HASH][0]))[1]
        if _GNU_HASH not in entries:
            return 0
        table = self.offset_of(entries[_GNU_HASH][0])
        n_buckets, first, n_bloom, _ = self.unpack("<IIII", table)
        buckets = table + 16 + 8 * n_bloom
        last = max(self.unpack(f"<{n_buckets}I", buckets), default=0)
        if last < first:
            return first
        chain = buckets + 4 * n_buckets
        while last < _MAX_SYMBOLS and not self.unpack("<I", chain + 4 * (last - first))[0] & 1:
            last += 1
        return last + 1

    def symbols(self, entries: dict[int, list[int]]) -> tuple[set[str], set[str]]:
        exports: set[str] = set()
        imports: set[str] = set()
        if _SYMTAB not in entries or _STRTAB not in entries:
            return exports, imports
        table, names = (self.offset_of(entries[tag][0]) for tag in (_SYMTAB, _STRTAB))
        for i in range(1, min(self.count_symbols(entries), _MAX_SYMBOLS)):
            name, info, _, section = self.unpack("<IBBH", table + 24 * i)
            if info >> 4 in (1, 2, 10):  # global, weak, unique
                (exports if section else imports).add(self.text(names + name))
        return exports, imports


def read_elf(path: Path) -> Elf:
    """Read a file; FormatError: it is none, or damaged, or for another kind of machine."""
    reader = _Reader(path, path.read_bytes())
    if reader.data[:4] != b"\x7fELF":
        raise FormatError(f"{path} is no program or library (no ELF file)")
    if reader.data[4:6] != b"\x02\x01":
        raise FormatError(f"{path} is not for a 64-bit little-endian machine")
    reader.read_segments()
    entries = reader.dynamic()
    interpreter = reader.segment(_INTERP)
    exports, imports = reader.symbols(entries)

    def names(tag: int) -> tuple[str, ...]:
        start = reader.offset_of(entries[_STRTAB][0]) if _STRTAB in entries else 0
        return tuple(reader.text(start + value) for value in entries.get(tag, ()))

    return Elf(
        path=path,
        is_dynamic=bool(entries),
        interpreter=reader.text(interpreter[0]) if interpreter else "",
        soname="".join(names(_SONAME)[:1]),
        needed=names(_NEEDED),
        exports=frozenset(exports),
        imports=frozenset(imports),
    )
