"""Lends llama.cpp's CPU backend to other processes, as its RPC server does.

    python rpc_server.py SITE ENDPOINT

SITE is the folder with llama_cpp. Ends when it is killed. Run as a program by test_dropin_llama.py.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


def main() -> int:
    folder, endpoint = Path(sys.argv[1], "llama_cpp", "lib"), sys.argv[2]
    ggml = ctypes.CDLL(str(folder / "libggml.so"))
    ggml.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    cpu = ctypes.c_void_p(ggml.ggml_backend_dev_by_type(0))
    rpc = ctypes.CDLL(str(folder / "libggml-rpc.so"))
    n_threads, n_devices = ctypes.c_size_t(2), ctypes.c_size_t(1)
    rpc.ggml_backend_rpc_start_server(
        endpoint.encode(), None, n_threads, n_devices, ctypes.byref(cpu)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
