"""What ggml-cuda's source does that a capture cannot hold: csrc/dispatch/cuda_capturable.c.

The list of what it waits for, copies from the host, and asks about captures, is that of the ggml
that is vendored.  A new ggml that has more of it fails here, and has to be read.
"""

from __future__ import annotations

import re
from collections import Counter

from tools import ROOT

SOURCE = ROOT / "vendor" / "ggml" / "src" / "ggml-cuda"
OURS = ROOT / "csrc" / "dispatch" / "cuda_capturable.c"

#: Waits for a stream, an event or the device, copies and fills that do: file, function -> how many.
WAITS = {
    # of buffers and instances, which no operation calls
    ("ggml-cuda.cu", "ggml_backend_cuda_buffer_init_tensor"): 1,
    ("ggml-cuda.cu", "ggml_backend_cuda_buffer_memset_tensor"): 1,
    ("ggml-cuda.cu", "ggml_backend_cuda_buffer_set_tensor"): 1,
    ("ggml-cuda.cu", "ggml_backend_cuda_buffer_get_tensor"): 1,
    ("ggml-cuda.cu", "ggml_backend_cuda_buffer_set_tensor_2d"): 1,
    ("ggml-cuda.cu", "ggml_backend_cuda_buffer_get_tensor_2d"): 1,
    ("ggml-cuda.cu", "ggml_backend_cuda_buffer_cpy_tensor"): 1,
    ("ggml-cuda.cu", "ggml_backend_cuda_buffer_clear"): 1,
    ("ggml-cuda.cu", "ggml_backend_cuda_synchronize"): 1,
    ("ggml-cuda.cu", "ggml_backend_cuda_device_event_synchronize"): 1,
    # when a pool is out of memory
    ("ggml-cuda.cu", "alloc"): 1,
    # between several devices
    ("allreduce.cu", None): None,
    # experts_wait
    ("ggml-cuda.cu", "ggml_cuda_mul_mat_id"): 2,
}
#: Copies from and to the host, by operations.
COPIES = {("ggml-cuda.cu", "ggml_cuda_mul_mat_id"): 2}
#: Questions whether a capture is under way: sorts_otherwise, sums_otherwise.
QUESTIONS = {("argsort.cu", "argsort_f32_i32_cuda_cub"): 1, ("mean.cu", "ggml_cuda_op_mean"): 1}

WAIT = re.compile(
    r"\b(cudaStreamSynchronize|cudaDeviceSynchronize|cudaEventSynchronize|cudaStreamQuery|"
    r"cudaEventQuery|cudaMemcpy|cudaMemcpy2D|cudaMemset|cudaMemcpyToSymbol|cuCtxSynchronize|"
    r"cuStreamSynchronize)\("
)
COPY = re.compile(r"\bcudaMemcpy(HostToDevice|DeviceToHost|Default)\b")
QUESTION = re.compile(r"\b(cudaStreamIsCapturing|cudaStreamGetCaptureInfo\w*)\(")
FUNCTION = re.compile(r"^\s{0,4}(?:[\w:<>*&]+ +)*[*&]*(\w+)\(.*?(?:\{|,)\s*(?:override \{)?$")


def found(pattern: re.Pattern[str]) -> Counter[tuple[str, str]]:
    """File and function of each match; comments do not count."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in sorted(SOURCE.rglob("*.cu*")):
        function = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            code = line.split("//")[0]
            start = FUNCTION.match(code)
            if start and start[1] not in {"if", "for", "while", "switch", "return", "CUDA_CHECK"}:
                function = start[1]
            counts[path.name, function] += len(pattern.findall(code))
    return +counts


def test_waits_are_those_that_are_known() -> None:
    waits = {key: n for key, n in found(WAIT).items() if key[0] != "allreduce.cu"}
    assert waits == {key: n for key, n in WAITS.items() if n is not None}


def test_copies_are_those_that_are_known() -> None:
    copies = {
        (file, function): n
        for (file, function), n in found(COPY).items()
        if file != "allreduce.cu" and not function.startswith("ggml_backend_cuda_")
    }
    assert copies == COPIES


def test_questions_are_those_that_are_known() -> None:
    assert found(QUESTION) == QUESTIONS


def body(text: str, start: str, end: str) -> str:
    begin = text.index(start)
    return text[begin : text.index(end, begin)]


def test_most_vector_tokens_is_ggmls() -> None:
    """For each type and each class of devices, as get_mmvq_mmid_max_batch has it."""
    theirs = (SOURCE / "mmvq.cu").read_text(encoding="utf-8")
    limit = int(re.search(r"MMVQ_MAX_BATCH_SIZE (\d+)", (SOURCE / "mmvq.cuh").read_text())[1])
    ours = body(OURS.read_text(encoding="utf-8"), "most_vector_tokens(", "\n}")
    mine: dict[str, tuple[int, int]] = {}
    names: list[str] = []
    for name, old, new in re.findall(
        r"case GGML_TYPE_(\w+):(?:\s*return old \? (\d+) : (\w+);)?", ours
    ):
        names.append(name)
        if old:
            for each in names:
                mine[each] = (int(old), limit if new == "VECTOR_TOKENS" else int(new))
            names = []
    assert mine
    assert not names
    for place, function in enumerate(("pascal_older", "turing_plus")):
        table = body(theirs, f"get_mmvq_mmid_max_batch_{function}(", "\n}")
        wanted = dict(re.findall(r"case GGML_TYPE_(\w+):\s*return (\d+);", table))
        for name in mine.keys() | wanted.keys():
            got = mine.get(name, (limit, limit))[place]
            assert got == int(wanted.get(name, limit)), (function, name)


def test_types_with_mmq_kernels_are_ggmls() -> None:
    source = (SOURCE / "mmq.cu").read_text(encoding="utf-8")
    theirs = body(source, "ggml_cuda_should_use_mmq(", "default:")
    ours = body(OURS.read_text(encoding="utf-8"), "has_mmq_kernels(", "default:")
    types = re.compile(r"case GGML_TYPE_(\w+):")
    assert types.findall(theirs) == types.findall(ours)
