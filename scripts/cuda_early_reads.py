#!/usr/bin/env python3
"""List kernels that touch memory before they wait for the kernel that they follow.

    python scripts/cuda_early_reads.py LIBRARY

LIBRARY holds CUDA code, such as libggml-cuda.so.  A kernel that is launched with programmatic
serialization may begin before the one before it is over, and waits for it by an instruction
(ACQBULK, griddepcontrol.wait in PTX).  What it loads before that may not have been written yet, so
csrc/dispatch/cuda_early.c has to know of it.  The source does not tell: the compiler moves loads.

Instructions are taken in the order in which they stand: a jump over the wait is not followed.
Needs cuobjdump and nvdisasm, which come with CUDA's toolkit, or by
`pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`; minutes for all of ggml-cuda.
Exit status 1 where a kernel that cuda_early.c does not know of does so.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Kernels of the operations that cuda_early.c takes for early.
KNOWN = ("flash_attn",)

_FUNCTION = re.compile(r"\.text\.(\S+):")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)")
#: Loads and stores of memory that other kernels see.
_MEMORY = re.compile(r"(LDG|STG|LD|ST|ATOM|ATOMG|RED|REDG|LDGSTS|UBLKCP|UTMALDG|UTMASTG)(\.|$)")


@dataclass
class Kernel:
    """What one kernel does before it waits."""

    name: str
    early: list[str] = field(default_factory=list)
    waits: bool = False


def kernels_of(listing: Iterable[str]) -> Iterator[Kernel]:
    """The kernels in a listing of nvdisasm's."""
    kernel: Kernel | None = None
    for line in listing:
        if match := _FUNCTION.match(line.strip()):
            if kernel is not None:
                yield kernel
            kernel = Kernel(match[1])
        elif kernel is not None and not kernel.waits and (match := _INSTRUCTION.search(line)):
            if match[1] == "ACQBULK":
                kernel.waits = True
            elif _MEMORY.match(match[1]):
                kernel.early.append(match[1])
    if kernel is not None:
        yield kernel


def early_in(listing: Iterable[str]) -> list[Kernel]:
    """Those that wait, and touch memory before."""
    return [kernel for kernel in kernels_of(listing) if kernel.waits and kernel.early]


def tool(name: str) -> str:
    """Where a tool of CUDA's is: on the path, beside CUDA, or in pip's packages."""
    places = [
        Path("/usr/local/cuda/bin"),
        *Path(sysconfig.get_path("purelib")).glob("nvidia/**/bin"),
    ]
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, places)]))
    if found is None:
        sys.exit(f"{name} was not found: pip install nvidia-cuda-{name}")
    return found


def disassembled(cubin: Path) -> list[Kernel]:
    """Kernels of one object that are early."""
    command = [tool("nvdisasm"), "-c", str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"nvdisasm: {done.stderr.strip()}")
    return early_in(done.stdout.splitlines())


def short(name: str) -> str:
    """The name of the function in a mangled name."""
    match = re.match(r"_Z(\d+)", name)
    return name[match.end() : match.end() + int(match[1])] if match else name


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path, metavar="LIBRARY")
    path = parser.parse_args().path.resolve()
    with tempfile.TemporaryDirectory() as folder:
        extract = [tool("cuobjdump"), "-xelf", "all", str(path)]
        subprocess.run(extract, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        cubins = sorted(Path(folder).glob("*.cubin"))
        if not cubins:
            sys.exit(f"{path} holds no code for a GPU")
        early: list[Kernel] = []
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for i, kernels in enumerate(pool.map(disassembled, cubins)):
                early += kernels
                if sys.stderr.isatty():
                    print(f"\r{i + 1} of {len(cubins)} objects", end="", file=sys.stderr)
    for kernel in early:
        print(f"{kernel.name}: {', '.join(kernel.early[:4])}")
    functions = sorted({short(kernel.name) for kernel in early})
    print(f"{len(early)} kernels of {len(functions)} functions: {', '.join(functions)}")
    unknown = [name for name in functions if not name.startswith(KNOWN)]
    if unknown:
        print(f"cuda_early.c does not know of {', '.join(unknown)}")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
