#!/usr/bin/env python3
"""Derives the Python bindings from the C headers: ggml's and our own.

    generate_bindings.py --ggml-include DIR --csrc DIR --out-dir DIR   writes DIR/_ffi.c
    generate_bindings.py --ggml-include DIR --csrc DIR --ops PATH      writes the Graph methods
    ... --check                                                        writes nothing; exits 1
                                                                       when a file is stale

``_ffi.c`` is the cffi extension ``ggml_concurrent._ffi`` (API mode, stable ABI).  It holds a
guarded wrapper ``guarded_<name>`` for every ggml function that Python calls, so that a failed
assertion of ggml's becomes a Python exception (csrc/ggml/guard.h).  The functions, structs, enums
and numbers of our public headers are all there under their own names.

``_ops.py`` holds one method for each function of ggml.h that builds a tensor.

No declaration is typed here: the script holds only names, and what no header says (which tensor
arguments may be NULL).  A name that the headers do not know is an error.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from c_headers import Function, Header, HeaderError, Parameter, read_headers

GGML_HEADERS = ("ggml.h", "gguf.h", "ggml-alloc.h", "ggml-backend.h")
OUR_HEADERS = ("ggc-core.h", "ggml-concurrent.h")

#
# What is taken from ggml's headers
#

# Functions called by hand-written Python, by header.  Tensor-building functions come by rule.
FUNCTIONS = """
ggml_version ggml_commit
ggml_init ggml_free ggml_used_mem ggml_get_mem_size ggml_tensor_overhead
ggml_new_tensor ggml_new_graph_custom ggml_graph_overhead_custom
ggml_graph_n_nodes ggml_graph_node
ggml_build_forward_expand ggml_build_forward_select
ggml_set_name ggml_set_input ggml_set_output
ggml_nbytes ggml_op_desc
ggml_is_contiguous ggml_is_transposed ggml_is_quantized
ggml_type_size ggml_blck_size ggml_type_name ggml_get_type_traits
ggml_quantize_chunk ggml_quantize_requires_imatrix

gguf_init_from_file gguf_free gguf_get_version gguf_get_alignment gguf_get_data_offset
gguf_get_n_kv gguf_get_key gguf_get_kv_type gguf_get_arr_type gguf_get_arr_n
gguf_get_arr_data gguf_get_arr_str gguf_get_val_str gguf_get_val_data
gguf_get_n_tensors gguf_get_tensor_name gguf_get_tensor_type gguf_get_tensor_ne
gguf_get_tensor_offset gguf_get_tensor_size

ggml_backend_alloc_ctx_tensors_from_buft
ggml_backend_buft_alloc_buffer ggml_backend_buft_get_alignment
ggml_backend_buft_get_device ggml_backend_dev_type ggml_backend_buffer_get_type
ggml_backend_buffer_free ggml_backend_buffer_is_host ggml_backend_buffer_clear
ggml_backend_tensor_alloc ggml_backend_tensor_set ggml_backend_tensor_get
ggml_backend_dev_by_type ggml_backend_dev_buffer_type ggml_backend_dev_buffer_from_host_ptr
ggml_backend_dev_supports_op ggml_backend_dev_backend_reg
ggml_backend_dev_description ggml_backend_dev_memory
ggml_backend_reg_get_proc_address
""".split()

# Functions that change a tensor just built; methods of Graph like the builders.
MODIFIERS = """
ggml_set_param ggml_set_loss ggml_prec_set_acc ggml_prec_set_src ggml_mul_mat_set_hint
ggml_soft_max_add_sinks ggml_rope_set_offset
ggml_flash_attn_ext_add_sinks ggml_flash_attn_ext_set_n_kv_max
""".split()

# Structs whose fields Python reads or writes; all others stay opaque.
STRUCTS = "ggml_tensor ggml_init_params gguf_init_params ggml_type_traits".split()

# Types of function pointers that Python gets as plain addresses, and calls.
CALLED_TYPEDEFS = ["ggml_backend_dev_get_extra_bufts_t"]

# Integer macros.
MACROS = ("GGML_MAX_DIMS", "GGML_MAX_SRC", "GGML_MAX_NAME", "GGML_ROPE_TYPE_")

# Tensor-building functions that do not become methods, and why.  Those that take a C callback and
# those that ggml.h marks as deprecated are found by rule.
OMITTED = {
    "ggml_new_tensor": "Graph.input, Store.array and Store.zeros make tensors that own memory",
    "ggml_new_tensor_1d": "see new_tensor",
    "ggml_new_tensor_2d": "see new_tensor",
    "ggml_new_tensor_3d": "see new_tensor",
    "ggml_new_tensor_4d": "see new_tensor",
    "ggml_dup_tensor": "makes a tensor that nothing computes",
    "ggml_view_tensor": "makes a view without an operation; use view_1d .. view_4d",
    "ggml_get_tensor": "a look-up, not an operation",
    "ggml_flash_attn_back": "ggml 0.25.3 aborts on every call",
}

# Tensor arguments for which ggml takes NULL.  The headers do not say so; ggml.c does.
OPTIONAL = {
    "ggml_soft_max_ext": {"mask"},
    "ggml_soft_max_ext_inplace": {"mask"},
    "ggml_soft_max_add_sinks": {"sinks"},
    "ggml_rope_ext": {"c"},
    "ggml_rope_ext_inplace": {"c"},
    "ggml_rope_ext_back": {"c"},
    "ggml_rope_multi": {"c"},
    "ggml_rope_multi_inplace": {"c"},
    "ggml_rope_multi_back": {"c"},
    "ggml_flash_attn_ext": {"mask"},
    "ggml_flash_attn_ext_add_sinks": {"sinks"},
    "ggml_dsv4_hc_post": {"comb"},
}

# Integer arguments that take the values of an enum or of a family of macros.
NAMED_VALUES = {"ggml_rope*.mode": "GGML_ROPE_TYPE_", "ggml_interpolate.mode": "ggml_scale_mode"}

# Constants that only count the others.
ENUM_TAIL = ("_COUNT",)

COLUMNS = 100


#
# Choosing
#


def is_builder(function: Function) -> bool:
    return (
        function.result == "struct ggml_tensor *"
        and bool(function.parameters)
        and function.parameters[0].type == "struct ggml_context *"
    )


def takes_callback(function: Function, header: Header) -> bool:
    return any(
        "(*" in header.typedefs.get(p.type, "").replace(" ", "") for p in function.parameters
    )


def omission(function: Function, header: Header) -> str | None:
    """Why a builder does not become a method, or None when it does."""
    if function.name in OMITTED:
        return OMITTED[function.name]
    if function.deprecated:
        return "deprecated in ggml.h"
    if takes_callback(function, header):
        return "computes with a C callback, which Python cannot give safely"
    return None


def builders(ggml: Header) -> list[Function]:
    found = [f for f in ggml.functions.values() if is_builder(f)]
    return [f for f in found if omission(f, ggml) is None]


def named(ggml: Header, names: Iterable[str]) -> list[Function]:
    for name in names:
        if name not in ggml.functions:
            raise HeaderError(ggml.refused.get(name, f"{name} is not in ggml's headers"))
    return [ggml.functions[n] for n in names]


def check_knowledge(ggml: Header) -> None:
    """Raises where the tables of this script name something that the headers do not have."""
    named(ggml, OMITTED)
    for function in named(ggml, OPTIONAL):
        unknown = OPTIONAL[function.name] - {p.name for p in function.parameters}
        if unknown:
            raise HeaderError(f"OPTIONAL names no parameter of {function.name}: {unknown}")
    for name in STRUCTS:
        if name not in ggml.structs:
            raise HeaderError(f"struct {name} is not in ggml's headers")


#
# The extension
#

# Included in the C file, ahead of the wrappers.
PREAMBLE = """
#include <stdio.h>
#include <string.h>

#include "ggml.h"
#include "gguf.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-concurrent.h"
#include "ggml/guard.h"

// From the first device of CUDA's on, other libraries may capture beside us; before, its driver is
// not to be loaded.
static bool cuda_is_used;

static void use_cuda(void) {
    cuda_is_used = true;
}

static int unbound_begin(void) {
    return cuda_is_used ? ggc_unbound_begin() : -1;
}

static void unbound_end(int mode) {
    if (mode >= 0) {
        ggc_unbound_end(mode);
    }
}

static void pool_free(struct ggc_pool * pool) {
    const int mode = unbound_begin();
    ggc_pool_free(pool);
    unbound_end(mode);
}

// Runs one statement under a guard, which mentions parameters of any name but `mode_`. What it
// assigns keeps its first value when ggml asserts, and ggc_guard_message() is then not empty.
#define GUARDED(statement)                   \\
    do {                                     \\
        const int mode_ = unbound_begin();   \\
        if (setjmp(*ggc_guard_push()) == 0) {\\
            statement;                       \\
        }                                    \\
        ggc_guard_pop();                     \\
        unbound_end(mode_);                  \\
    } while (0)

// ggml says why a file or an allocation was refused only in its log. Between log_begin and log_end
// the calling thread's warnings and errors are kept for the exception that follows; all else goes
// to whoever had the log before.
static _Thread_local bool log_kept;
static _Thread_local char log_text[1024];
static ggml_log_callback log_before;
static void * log_before_data;

static void keep_log(enum ggml_log_level level, const char * text, void * user_data) {
    (void) user_data;
    if (!log_kept) {
        log_before(level, text, log_before_data);
    } else if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) {
        const size_t used = strlen(log_text);
        snprintf(log_text + used, sizeof(log_text) - used, "%s", text);
    }
}

static void log_begin(void) {
    ggml_log_callback callback;
    void * data;
    ggml_log_get(&callback, &data);
    if (callback != keep_log) {
        log_before = callback;
        log_before_data = data;
        ggml_log_set(keep_log, NULL);
    }
    log_kept = true;
    log_text[0] = '\\0';
}

static const char * log_end(void) {
    log_kept = false;
    return log_text;
}
"""

PREAMBLE_CDEF = """
void log_begin(void);
const char * log_end(void);
void use_cuda(void);
void pool_free(struct ggc_pool * pool);
"""


def wrapper(function: Function) -> str:
    """C source of the guarded form of `function`."""
    call = f"{function.name}({', '.join(p.name for p in function.parameters)})"
    head = f"static {function.declare('guarded_' + function.name)} {{\n"
    if function.result == "void":
        return head + f"    GUARDED({call});\n}}\n"
    return head + (
        f"    {function.result} volatile result = {{0}};\n"
        f"    GUARDED(result = {call});\n"
        f"    return result;\n}}\n"
    )


def struct_cdef(name: str, body: str) -> str:
    """A struct for cffi: array lengths and further fields are left to the compiler."""
    fields = re.sub(r"\[[^]]*\]", "[...]", body)
    return f"struct {name} {{ {fields} ...; }};"


def function_cdef(function: Function, name: str) -> str:
    """A prototype for cffi, which wants no macros as lengths of array parameters."""
    return re.sub(r"\[\w+\]", "[]", function.declare(name)) + ";"


def enum_cdef(name: str, constants: list[str]) -> str:
    return f"enum {name} {{ {', '.join(constants)}, ... }};"


def used_typedefs(ggml: Header, functions: list[Function]) -> list[str]:
    """Typedefs that functions and structs mention, and those that Python calls."""
    words = set(CALLED_TYPEDEFS)
    for text in [f.prototype for f in functions] + [ggml.structs[name] for name in STRUCTS]:
        words.update(re.findall(r"\w+", text))
    return [text for name, text in ggml.typedefs.items() if name in words]


def ggml_cdef(ggml: Header, functions: list[Function]) -> Iterator[str]:
    for name, constants in ggml.enums.items():
        yield enum_cdef(name, constants)
    for macro in ggml.macros:
        if macro.startswith(MACROS):
            yield f"#define {macro} ..."
    yield from (f"{text};" for text in used_typedefs(ggml, functions))
    yield from (struct_cdef(name, ggml.structs[name]) for name in STRUCTS)
    yield from (function_cdef(f, "guarded_" + f.name) for f in functions)


def our_cdef(ours: Header) -> Iterator[str]:
    """Everything that our public headers declare."""
    for name, constants in ours.enums.items():
        yield enum_cdef(name, constants)
    yield from (f"#define {macro} ..." for macro in ours.macros)
    yield from (f"{text};" for text in ours.typedefs.values())
    yield from (struct_cdef(name, body) for name, body in ours.structs.items())
    yield from (function_cdef(f, f.name) for f in ours.functions.values())


def write_extension(ggml: Header, ours: Header, path: Path) -> None:
    import cffi  # only here: the methods can be derived without it

    functions = named(ggml, FUNCTIONS + MODIFIERS) + builders(ggml)
    cdef = [*ggml_cdef(ggml, functions), *our_cdef(ours), PREAMBLE_CDEF]
    ffi = cffi.FFI()
    ffi.cdef("\n".join(cdef))
    source = PREAMBLE + "\n" + "\n".join(wrapper(f) for f in functions)
    ffi.set_source("ggml_concurrent._ffi", source, py_limited_api=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    ffi.emit_c_code(str(path))


#
# The methods
#

OPS_HEAD = '''\
"""The operations of ggml.h as methods of Graph.

Written by scripts/generate_bindings.py from ggml.h: do not edit.
Parameters have the names and the order of ggml.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dtypes import DTypeLike
    from .tensor import Tensor

'''

OPS_CLASS = '''\

class Ops:
    """One method for each tensor-building function of ggml.h."""

    def _build(self, name: str, *args: Any) -> Tensor:
        raise NotImplementedError

    def _modify(self, name: str, *args: Any) -> Tensor:
        raise NotImplementedError
'''

# C's type -> how Python converts an argument, and its type hint
KINDS = {
    "struct ggml_tensor *": ("tensor", "Tensor"),
    "enum ggml_type": ("dtype", "DTypeLike"),
    "int[]": ("i32[4]", "Sequence[int]"),
    "int64_t *": ("i64[4]", "Sequence[int]"),
    "float": ("f32", "float"),
    "int": ("i32", "int"),
    "int32_t": ("i32", "int"),
    "uint32_t": ("u32", "int"),
    "int64_t": ("i64", "int"),
    "size_t": ("size", "int"),
    "bool": ("bool", "bool"),
}


def python_name(name: str) -> str:
    return name + "_" if name == "as" else name  # the only Python keyword among ggml's names


def short(function: Function) -> str:
    return function.name.removeprefix("ggml_")


def named_values(function: Function, parameter: Parameter) -> str | None:
    for pattern, values in NAMED_VALUES.items():
        if re.fullmatch(
            pattern.replace(".", r"\.").replace("*", ".*"), f"{function.name}.{parameter.name}"
        ):
            return values
    return None


def kind_and_hint(function: Function, parameter: Parameter) -> tuple[str, str]:
    """The entry of KINDS for a parameter; named values and optional tensors have their own."""
    kind = parameter.type + ("[]" if parameter.array else "")
    optional = parameter.name in OPTIONAL.get(function.name, ())
    values = named_values(function, parameter) or ""
    if kind.startswith("enum ") and kind != "enum ggml_type":
        values = kind.removeprefix("enum ")
    if values:
        return f"enum {values}", "str | int"
    if kind == "struct ggml_tensor *" and optional:
        return "tensor?", "Tensor | None"
    if kind not in KINDS:
        raise HeaderError(f"{function.name}: no Python type for {parameter.declaration!r}")
    return KINDS[kind]


def method_parameters(function: Function) -> list[Parameter]:
    first = function.parameters[0].type
    return list(function.parameters[1 if first == "struct ggml_context *" else 0 :])


def signature(name: str, arguments: list[str]) -> str:
    """A def line as ruff would format it."""
    one = f"    def {name}({', '.join(['self', *arguments])}) -> Tensor:\n"
    if len(one) <= COLUMNS + 1:
        return one
    two = f"        {', '.join(['self', *arguments])}\n"
    if len(two) <= COLUMNS + 1:
        return f"    def {name}(\n{two}    ) -> Tensor:\n"
    rows = "".join(f"        {a},\n" for a in ["self", *arguments])
    return f"    def {name}(\n{rows}    ) -> Tensor:\n"


def docstring(function: Function) -> str:
    text = f"C: ``{function.prototype}``."
    if len(text) + 14 <= COLUMNS:
        return f'        """{text}"""\n'
    # Broken after commas only: a parameter stays in one piece.
    glued = re.sub(r"(?<!,) ", "\0", text)
    lines = textwrap.wrap(glued, COLUMNS - 15, break_long_words=False, break_on_hyphens=False)
    return '        """' + "\n        ".join(lines).replace("\0", " ") + '\n        """\n'


def call_line(how: str, values: list[str]) -> str:
    line = f"        return self.{how}({', '.join(values)})\n"
    if len(line) <= COLUMNS + 1:
        return line
    inner = f"            {', '.join(values)}\n"
    if len(inner) <= COLUMNS + 1:
        return f"        return self.{how}(\n{inner}        )\n"
    rows = "".join(f"            {v},\n" for v in values)
    return f"        return self.{how}(\n{rows}        )\n"


def method(function: Function, how: str) -> str:
    parameters = method_parameters(function)
    hints = [kind_and_hint(function, p)[1] for p in parameters]
    names = [python_name(p.name) for p in parameters]
    arguments = [f"{n}: {h}" for n, h in zip(names, hints, strict=True)]
    return (
        signature(short(function), arguments)
        + docstring(function)
        + call_line(how, [f'"{short(function)}"', *names])
    )


def spec_lines(functions: list[Function]) -> Iterator[str]:
    yield "# name -> (parameter, kind) in the order of the call, the context left out\n"
    yield "SPECS: dict[str, tuple[tuple[str, str], ...]] = {\n"
    for f in functions:
        pairs = [(python_name(p.name), kind_and_hint(f, p)[0]) for p in method_parameters(f)]
        items = [f'("{n}", "{k}")' for n, k in pairs]
        one = f'    "{short(f)}": ({", ".join(items)}{"," if len(items) == 1 else ""}),\n'
        if len(one) <= COLUMNS + 1:
            yield one
        else:
            yield f'    "{short(f)}": (\n' + "".join(f"        {i},\n" for i in items) + "    ),\n"
    yield "}\n\n"


def enum_values(ggml: Header, name: str) -> dict[str, str]:
    """Python's short names for the constants of an enum or of a family of macros."""
    if name.endswith("_"):
        constants, prefix = [m for m in ggml.macros if m.startswith(name)], name
    else:
        constants = [c for c in ggml.enums[name] if not c.endswith(ENUM_TAIL)]
        prefix = constants[0]
        while not all(c.startswith(prefix) for c in constants) or not prefix.endswith("_"):
            prefix = prefix[:-1]
    return {c.removeprefix(prefix).lower(): c for c in constants}


def enum_lines(ggml: Header, functions: list[Function]) -> Iterator[str]:
    kinds = {kind_and_hint(f, p)[0] for f in functions for p in method_parameters(f)}
    yield "# enum -> Python's name of each value -> C's\n"
    yield "ENUMS: dict[str, dict[str, str]] = {\n"
    for name in sorted(k.removeprefix("enum ") for k in kinds if k.startswith("enum ")):
        yield f'    "{name}": {{\n'
        for value, constant in enum_values(ggml, name).items():
            yield f'        "{value}": "{constant}",\n'
        yield "    },\n"
    yield "}\n\n"


def omitted_lines(ggml: Header) -> Iterator[str]:
    yield "# tensor-building functions of ggml.h that are no methods, and why\n"
    yield "OMITTED: dict[str, str] = {\n"
    for f in ggml.functions.values():
        if is_builder(f) and (reason := omission(f, ggml)):
            yield f'    "{f.name}": "{reason}",\n'
    yield "}\n\n"


def ops_source(ggml: Header) -> str:
    building, changing = builders(ggml), named(ggml, MODIFIERS)
    parts = [OPS_HEAD]
    parts += spec_lines(building + changing)
    parts += enum_lines(ggml, building + changing)
    parts += omitted_lines(ggml)
    parts.append(OPS_CLASS)
    parts += ["\n" + method(f, "_build") for f in building]
    parts += ["\n" + method(f, "_modify") for f in changing]
    return "".join(parts)


#
# Command line
#


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ggml-include", type=Path, required=True, help="folder of ggml.h")
    parser.add_argument("--csrc", type=Path, required=True, help="our csrc folder")
    parser.add_argument("--out-dir", type=Path, help="where to write _ffi.c")
    parser.add_argument("--ops", type=Path, help="the _ops.py to write")
    parser.add_argument(
        "--check",
        action="store_true",
        help="only say whether the file given with --ops is up to date",
    )
    arguments = parser.parse_args(argv)
    if not arguments.out_dir and not arguments.ops:
        parser.error("nothing to do: give --out-dir, --ops or both")
    if arguments.check and not arguments.ops:
        parser.error("--check needs --ops")
    return arguments


def read_our_headers(csrc: Path) -> Header:
    """Our public headers, of which nothing may be left out."""
    ours = read_headers(csrc / "include", OUR_HEADERS)
    for reason in ours.refused.values():
        raise HeaderError(reason)
    return ours


def is_stale(path: Path, source: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != source


def run(arguments: argparse.Namespace) -> int:
    ggml = read_headers(arguments.ggml_include, GGML_HEADERS)
    check_knowledge(ggml)
    if arguments.check:
        if is_stale(arguments.ops, ops_source(ggml)):
            print(f"{arguments.ops} is stale: run {Path(__file__).name} --ops", file=sys.stderr)
            return 1
        return 0
    if arguments.ops:
        arguments.ops.write_text(ops_source(ggml), encoding="utf-8")
    if arguments.out_dir:
        write_extension(ggml, read_our_headers(arguments.csrc), arguments.out_dir / "_ffi.c")
    return 0


def main(argv: list[str]) -> int:
    try:
        return run(parse_arguments(argv))
    except HeaderError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
