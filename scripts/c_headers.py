"""Reads the declarations of C headers, as far as ggml's and our own go.

Understands: prototypes marked GGML_API, GGML_BACKEND_API or GGC_API, also inside GGML_DEPRECATED;
structs, enums, typedefs; integer macros.  Anything else is a HeaderError, so that a header that
changes its ways is noticed and not misread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path


class HeaderError(Exception):
    """A header says something that this script does not understand."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a C function."""

    type: str  # "struct ggml_tensor *", "int"
    name: str
    array: str = ""  # "[4]" of "int sections[4]"

    @property
    def declaration(self) -> str:
        space = "" if self.type.endswith("*") else " "
        return f"{self.type}{space}{self.name}{self.array}"


@dataclass(frozen=True)
class Function:
    """A C function as a header declares it."""

    name: str
    result: str
    parameters: tuple[Parameter, ...]
    deprecated: bool = False

    @property
    def prototype(self) -> str:
        return self.declare(self.name)

    def declare(self, name: str) -> str:
        arguments = ", ".join(p.declaration for p in self.parameters) or "void"
        space = "" if self.result.endswith("*") else " "
        return f"{self.result}{space}{name}({arguments})"


@dataclass
class Header:
    """The declarations of one or more headers, by name."""

    functions: dict[str, Function] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # function -> why Python cannot call it
    enums: dict[str, list[str]] = field(default_factory=dict)
    structs: dict[str, str] = field(default_factory=dict)  # name -> text between the braces
    opaque: list[str] = field(default_factory=list)
    typedefs: dict[str, str] = field(default_factory=dict)  # name -> whole declaration
    macros: list[str] = field(default_factory=list)


def strip_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)


def condition_holds(line: str) -> bool:
    """Whether a conditional branch is taken by a C compiler on a Unix, nothing special defined."""
    words = line.lstrip("#").split(None, 1)
    if words[0] == "ifndef":
        return True
    return bool(re.fullmatch(r"ifdef\s+__GNUC__|if\s+!defined\(\w+\)", line.lstrip("# ")))


def active_lines(text: str) -> Iterator[str]:
    """The lines of the branches that are taken, directives other than #define left out."""
    taken: list[bool] = []
    any_taken: list[bool] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        directive = line.strip()
        if not directive.startswith("#"):
            if all(taken):
                yield line
            continue
        word = directive.lstrip("# ").split(None, 1)[0]
        if word in ("if", "ifdef", "ifndef"):
            taken.append(condition_holds(directive))
            any_taken.append(taken[-1])
        elif word == "elif":
            taken[-1] = False
        elif word == "else":
            taken[-1] = not any_taken[-1]
        elif word == "endif":
            taken.pop()
            any_taken.pop()
        elif word == "define" and all(taken):
            yield directive


def integer_macro(line: str) -> str | None:
    """The name of an object-like macro whose value is an integer constant."""
    value = r"\(?-?(?:0x[0-9a-fA-F]+|\d+|UINT32_MAX|UINT64_MAX|SIZE_MAX)\)?"
    match = re.fullmatch(rf"#\s*define\s+(\w+)\s+{value}\s*", line)
    return match.group(1) if match else None


def split_declarations(text: str) -> Iterator[str]:
    """Declarations as they stand between semicolons outside of brackets."""
    depth, start = 0, 0
    for i, c in enumerate(text):
        if c in "({[":
            depth += 1
        elif c in ")}]":
            depth -= 1
        elif c == ";" and depth == 0:
            declaration = " ".join(text[start:i].split())
            start = i + 1
            if declaration:
                yield declaration
    rest = text[start:].strip()
    if rest:
        raise HeaderError(f"no semicolon after: {rest[:80]}")


def split_arguments(text: str) -> list[str]:
    """Splits at the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return parts


def parse_parameter(text: str, function: str) -> Parameter:
    match = re.fullmatch(r"(.*?[\s*])(\w+)\s*((?:\[[^\]]*\])?)", text)
    if "(" in text or not match:
        raise HeaderError(f"{function}: parameter not understood: {text!r}")
    kind, name, array = match.groups()
    kind = re.sub(r"\s*\*", " *", " ".join(kind.split()))
    if name in ("int", "float", "char", "void", "int64_t", "size_t"):
        raise HeaderError(f"{function}: parameter without a name: {text!r}")
    return Parameter(kind, name, re.sub(r"\s", "", array))


def read_function(text: str, deprecated: bool, header: Header) -> None:
    """Adds a prototype, or why Python cannot call it (unnamed parameters, variadic)."""
    match = re.fullmatch(r"(.+?[\s*])(\w+)\s*\((.*)\)", text)
    if not match:
        raise HeaderError(f"declaration not understood: {text[:100]}")
    result, name, arguments = match.groups()
    result = re.sub(r"\s*\*", " *", " ".join(result.split()))
    parts = [] if arguments == "void" else split_arguments(arguments)
    try:
        parameters = tuple(parse_parameter(part, name) for part in parts)
    except HeaderError as error:
        header.refused[name] = str(error)
        if result == "struct ggml_tensor *" and "..." not in arguments:
            raise  # it may build a tensor: nothing of that kind is left out silently
    else:
        header.functions[name] = Function(name, result, parameters, deprecated)


def parse_typedef(text: str) -> tuple[str, str]:
    """Name and cleaned text of a typedef."""
    text = re.sub(r"\bGGML_RESTRICT\b ?", "", text)
    match = re.search(r"\(\s*\*\s*(\w+)\s*\)\s*\(", text) or re.search(r"(\w+)(\[\d+\])?$", text)
    if not match:
        raise HeaderError(f"typedef not understood: {text[:100]}")
    return match.group(1), text


def read_declaration(text: str, header: Header) -> None:
    text = re.sub(r"GGML_ATTRIBUTE_FORMAT\([^)]*\)|GGML_NORETURN", "", text).strip()
    deprecated = re.fullmatch(r'GGML_DEPRECATED\s*\(\s*(.*?)\s*,\s*"[^"]*"\s*\)', text)
    if deprecated:
        text = deprecated.group(1)
    if enum := re.fullmatch(r"enum (\w+) ?\{(.*)\}", text):
        names = [c.split("=")[0].strip() for c in split_arguments(enum.group(2))]
        header.enums[enum.group(1)] = [n for n in names if n]
    elif struct := re.fullmatch(r"struct (\w+) ?\{(.*)\}", text):
        header.structs[struct.group(1)] = struct.group(2).strip()
    elif opaque := re.fullmatch(r"struct (\w+)", text):
        header.opaque.append(opaque.group(1))
    elif text.startswith("typedef "):
        name, whole = parse_typedef(text)
        header.typedefs[name] = whole
    elif marked := re.match(r"(?:GGML_API|GGML_BACKEND_API|GGC_API)\b\s*(.*)", text):
        read_function(marked.group(1), deprecated is not None, header)
    elif not text.startswith("static const "):
        raise HeaderError(f"declaration not understood: {text[:100]}")


def read_headers(folder: Path, names: Iterable[str]) -> Header:
    header = Header()
    for name in names:
        path = folder / name
        try:
            text = strip_comments(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise HeaderError(f"cannot read {path}: {error.strerror}") from None
        try:
            code = []
            for line in active_lines(text):
                if not line.startswith("#"):
                    code.append(line)
                elif macro := integer_macro(line):
                    header.macros.append(macro)
            for declaration in split_declarations("\n".join(code)):
                read_declaration(declaration, header)
        except HeaderError as error:
            raise HeaderError(f"{path}: {error}") from None
    return header
