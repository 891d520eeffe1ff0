"""Reads what the dynamic loader reads of a program: enough to say whether it can be reached."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from .errors import FormatError

__all__ = ["Elf", "read_elf"]

_SHARED = 3  # kind of file: a library, or a program that can lie anywhere
_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_NEEDED, _HASH, _STRTAB, _SYMTAB, _SONAME, _RPATH, _RUNPATH = 1, 4, 5, 6, 14, 15, 29
_GNU_HASH, _FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFFB
_PIE = 0x08000000  # of _FLAGS_1: a program
_MAX_SYMBOLS, _MAX_NAME = 1 << 20, 1 << 16
_MACHINES = {3: "x86", 40: "arm", 62: "x86-64", 183: "arm64", 243: "riscv64"}


@dataclass(frozen=True)
class Elf:
    """A 64-bit little-endian ELF file.

    machine: what processors it is for.
    interpreter: the loader that starts it; "" for a library, or a program linked statically.
    needed: names of the libraries that it is linked with.
    runpath: where those are looked for; "" if it does not say.
    exports, imports: symbols that others can reach, and that it takes from others.
    """

    path: Path
    machine: str
    is_library: bool
    interpreter: str
    soname: str
    runpath: str
    needed: tuple[str, ...]
    exports: frozenset[str]
    imports: frozenset[str]


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.segments: list[tuple[int, int, int, int]] = []  # type, offset, address, size
        self.entries: dict[int, list[int]] = {}  # of the dynamic section

    def unpack(self, form: str, offset: int) -> tuple[int, ...]:
        if offset + struct.calcsize(form) > len(self.data):
            raise FormatError(f"{self.path}: the file ends early, or is damaged")
        return struct.unpack_from(form, self.data, offset)

    def text(self, offset: int) -> str:
        size = len(self.data)
        end = self.data.find(b"\0", min(offset, size), min(offset + _MAX_NAME, size))
        if end < 0:
            raise FormatError(f"{self.path}: a name does not end, or lies outside of the file")
        return self.data[offset:end].decode("utf-8", "replace")

    def read_segments(self) -> None:
        (offset,), (size, n) = self.unpack("<Q", 32), self.unpack("<HH", 54)
        for i in range(n):
            kind, _, at, address, _, length = self.unpack("<IIQQQQ", offset + i * size)
            self.segments.append((kind, at, address, length))

    def segment(self, kind: int) -> tuple[int, int]:
        """Where it lies in the file, and how long it is; (0, 0) if there is none."""
        return next(((at, size) for k, at, _, size in self.segments if k == kind), (0, 0))

    def offset_of(self, address: int) -> int:
        for kind, at, start, size in self.segments:
            if kind == _LOAD and start <= address < start + size:
                return at + address - start
        raise FormatError(f"{self.path}: the address {address:#x} lies in no part of the file")

    def read_dynamic(self) -> None:
        start, size = self.segment(_DYNAMIC)
        for offset in range(start, start + size, 16):
            tag, value = self.unpack("<QQ", offset)
            if tag == 0:
                break
            self.entries.setdefault(tag, []).append(value)

    def names(self, tag: int) -> tuple[str, ...]:
        values = self.entries.get(tag, ())
        if values and _STRTAB not in self.entries:
            raise FormatError(f"{self.path}: it has no table of names")
        return tuple(self.text(self.offset_of(self.entries[_STRTAB][0]) + v) for v in values)

    def count_symbols(self) -> int:
        if _HASH in self.entries:
            return self.unpack("<II", self.offset_of(self.entries[_HASH][0]))[1]
        if _GNU_HASH not in self.entries:
            return 0
        # It has no count: the last chain ends with the last symbol.
        table = self.offset_of(self.entries[_GNU_HASH][0])
        n_buckets, first, n_bloom, _ = self.unpack("<IIII", table)
        buckets = table + 16 + 8 * n_bloom
        last = max(self.unpack(f"<{n_buckets}I", buckets), default=0)
        if last < first:
            return first
        chain = buckets + 4 * n_buckets
        while last < _MAX_SYMBOLS and not self.unpack("<I", chain + 4 * (last - first))[0] & 1:
            last += 1
        return last + 1

    def symbols(self) -> tuple[frozenset[str], frozenset[str]]:
        exports: set[str] = set()
        imports: set[str] = set()
        if _SYMTAB in self.entries and _STRTAB in self.entries:
            table = self.offset_of(self.entries[_SYMTAB][0])
            names = self.offset_of(self.entries[_STRTAB][0])
            for i in range(1, min(self.count_symbols(), _MAX_SYMBOLS)):
                name, info, _, section = self.unpack("<IBBH", table + 24 * i)
                if info >> 4 in (1, 2, 10):  # global, weak, unique
                    (exports if section else imports).add(self.text(names + name))
        return frozenset(exports), frozenset(imports)

    def read(self) -> Elf:
        kind, machine = self.unpack("<HH", 16)
        self.read_segments()
        self.read_dynamic()
        interpreter, _ = self.segment(_INTERP)
        is_program = bool(interpreter) or bool(self.entries.get(_FLAGS_1, [0])[0] & _PIE)
        exports, imports = self.symbols()
        return Elf(
            path=self.path,
            machine=_MACHINES.get(machine, f"machine {machine}"),
            is_library=kind == _SHARED and bool(self.entries) and not is_program,
            interpreter=self.text(interpreter) if interpreter else "",
            soname="".join(self.names(_SONAME)[:1]),
            runpath="".join((self.names(_RUNPATH) or self.names(_RPATH))[:1]),
            needed=self.names(_NEEDED),
            exports=exports,
            imports=imports,
        )


def read_elf(path: Path) -> Elf:
    """Read a file; FormatError: it is none, or damaged, or for another kind of machine."""
    if not path.is_file():
        raise FormatError(f"{path} is no file")
    with path.open("rb") as file:
        head = file.read(6)
        if head[:4] != b"\x7fELF":
            raise FormatError(f"{path} is no program or library (no ELF file)")
        if head[4:] != b"\x02\x01":
            raise FormatError(f"{path} is not for a 64-bit little-endian machine")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).read()
