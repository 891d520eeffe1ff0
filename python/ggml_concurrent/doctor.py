"""`ggml-concurrent doctor`: whether a Python environment or a program can be made concurrent."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .dropin import RUNNERS, plugin_path
from .elf import Elf, read_elf
from .errors import DeviceError, FormatError
from .launch import obstacle

__all__ = ["Diagnosis", "examine"]

_TIMEOUT = 120.0  # seconds that a package may take to be imported
_LIBRARY = re.compile(r"(^|/)libggml(-base)?(\.v[\d.]+)?\.(so|dylib)(\.|$)")
_VARIABLES = (
    "GGML_CONCURRENT",
    "GGML_CONCURRENT_STREAMS",
    "GGML_CONCURRENT_CACHE",
    "GGML_CONCURRENT_QUIET",
    "GGML_BACKEND_PATH",
    "GGML_CUDA_GRAPH_OPT",
    "LD_PRELOAD",
)

# Run by the interpreter that is looked at, which need not have this package.
_PROBE = """
import ctypes, importlib, json, sys
library, names = sys.argv[1], sys.argv[2:]
found = {}
for name in names:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if getattr(error, "name", None) != name:
            found[name] = {"version": "", "error": str(error)}
        continue
    except BaseException as error:
        found[name] = {"version": "", "error": repr(error)}
        continue
    found[name] = {"version": str(getattr(module, "__version__", "")), "error": ""}
drop_in = ctypes.CDLL(library)
message, n = ctypes.create_string_buffer(2048), ctypes.c_uint32()
drop_in.ggc_dropin_attach(ctypes.byref(n), message, ctypes.c_size_t(2048))
report = ctypes.create_string_buffer(1 << 16)
drop_in.ggc_dropin_report(report, ctypes.c_size_t(1 << 16))
print(json.dumps({"packages": found, "held": n.value, "message": message.value.decode(),
                  "report": json.loads(report.value.decode())}))
"""


@dataclass
class Diagnosis:
    """What was found, a fact a line, and the answer."""

    subject: str
    can: bool = False
    facts: list[str] = field(default_factory=list)
    advice: str = ""

    def lines(self) -> list[str]:
        """The answer, then what it rests on, then what to do."""
        answer = "can be run concurrently" if self.can else "cannot be run concurrently"
        return [
            f"{self.subject}: {answer}",
            *(f"  {fact}" for fact in self.facts),
            *([f"  {self.advice}"] if self.advice else []),
        ]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def examine(target: str | None) -> Diagnosis:
    """This Python where target is None, else a Python, the folder of an environment, or a program.

    Raises FileNotFoundError, and FormatError for what is no program.
    """
    plugin_path()  # raises where there is no drop-in
    if target is None:
        return _examine_python(Path(sys.executable))
    path = Path(target)
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", target)
    python = path / "bin" / "python"
    if path.is_dir():
        if not python.exists():
            raise FormatError(f"{target} is a folder without bin/python, so no environment")
        return _examine_python(python)
    if re.fullmatch(r"python[\d.]*", path.name):
        return _examine_python(path)
    return _examine_program(path)


#
# A Python environment
#


def _examine_python(python: Path) -> Diagnosis:
    diagnosis = Diagnosis(str(python))
    environment = {key: os.environ[key] for key in os.environ if key != "LD_PRELOAD"}
    environment["GGML_CONCURRENT_QUIET"] = "1"
    program = [str(python), "-c", _PROBE, str(plugin_path()), *RUNNERS]
    result = subprocess.run(
        program, check=False, capture_output=True, text=True, env=environment, timeout=_TIMEOUT
    )
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        diagnosis.facts.append(f"it ended with status {result.returncode}: {last}")
        return diagnosis
    found = json.loads(result.stdout.splitlines()[-1])
    for name, package in found["packages"].items():
        diagnosis.facts.append(
            f"package {name} {package['version']}".rstrip()
            + (f" cannot be imported: {package['error']}" if package["error"] else "")
        )
    if not found["packages"]:
        diagnosis.facts.append(f"none of {', '.join(RUNNERS)} is installed")
    hosts = [host for host in found["report"]["hosts"] if not host["ours"]]
    for host in hosts:
        diagnosis.facts.append(_host_fact(host))
    diagnosis.can = found["held"] > 0
    if python == Path(sys.executable):
        diagnosis.facts += _own_facts()
    diagnosis.facts += [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    if diagnosis.can:
        diagnosis.advice = "call ggml_concurrent.attach() before a model is loaded"
    elif "libggml" in found["packages"]:
        diagnosis.advice = (
            "libggml loads no library when it is imported: call ggml_concurrent.attach() once your "
            "program has loaded it"
        )
    elif not hosts:
        diagnosis.advice = "install llama-cpp-python, or name the program that has a ggml"
    return diagnosis


def _host_fact(host: dict[str, object]) -> str:
    where = f"ggml {host['version'] or 'of an unknown version'} in {host['path']}"
    if not host["held"]:
        return f"{where}: left alone, {host['reason'] or 'it has no devices'}"
    devices = ", ".join(device["name"] for device in host["devices"])  # type: ignore[attr-defined]
    return f"{where}: all layouts agree; devices {devices}"


def _own_facts() -> list[str]:
    from .runner import tuning_folder

    facts = []
    for distribution in importlib.metadata.distributions():
        libraries = [str(f) for f in distribution.files or () if _LIBRARY.search(str(f))]
        if libraries:
            name = distribution.metadata["Name"]
            facts.append(f"{name} {distribution.version} brings {min(libraries, key=len)}")
    folder = tuning_folder()
    parent = folder if folder is None or folder.exists() else folder.parent
    if parent is None:
        facts.append("what is found fastest is not kept: there is no cache folder")
    elif not os.access(parent, os.W_OK):
        facts.append(f"what is found fastest is not kept: {parent} cannot be written to")
    else:
        facts.append(f"what is found fastest is kept in {folder}")
    return facts


#
# A program
#


def _examine_program(path: Path) -> Diagnosis:
    diagnosis = Diagnosis(str(path))
    program = read_elf(path) if path.read_bytes()[:2] != b"#!" else None
    is_library = program is not None and bool(program.soname)
    reason = "" if is_library else obstacle(path)
    if reason or program is None:
        diagnosis.facts.append(reason or "it is a script")
        diagnosis.advice = (
            "build it with shared libraries (BUILD_SHARED_LIBS=ON)"
            if reason
            else "ggml-concurrent exec -- reaches what its interpreter loads"
        )
        return diagnosis
    diagnosis.facts.append("it is a library" if is_library else "it is linked dynamically")
    parts = [program, *_libraries(path)]
    with_ggml = [part for part in parts if "ggml_backend_dev_get" in part.exports]
    callers = [part for part in parts if "ggml_backend_sched_new" in part.imports]
    loaders = [part for part in parts if "ggml_backend_load_all" in part.imports | part.exports]
    diagnosis.facts += [f"{part.path} has ggml's devices" for part in with_ggml]
    diagnosis.facts += [
        f"{part.path} makes schedulers, which can be taken hold of" for part in callers
    ]
    if program in with_ggml and not callers:
        diagnosis.facts.append("it calls its scheduler within itself: preloading does not see that")
    if is_library:
        diagnosis.can = bool(with_ggml or callers)
        diagnosis.advice = "look at the program that loads it, or call attach() from there"
    elif callers:
        diagnosis.can = True
        diagnosis.advice = f"ggml-concurrent exec -- {path}"
    elif loaders:
        diagnosis.can = True
        diagnosis.advice = f"GGML_BACKEND_PATH=$(ggml-concurrent plugin-path) {path}"
    elif with_ggml:
        diagnosis.advice = "attach() from inside of it, once its ggml is loaded"
    else:
        diagnosis.facts.append("it is linked with no ggml; what it loads while it runs is not seen")
        diagnosis.advice = f"try: ggml-concurrent exec -- {path} (it says whether it took hold)"
    return diagnosis


def _libraries(path: Path) -> list[Elf]:
    """What the loader would load with the program, which is not run."""
    environment = {**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}
    interpreter = read_elf(path).interpreter or read_elf(Path(sys.executable)).interpreter
    result = subprocess.run(
        [interpreter, str(path.resolve())],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=_TIMEOUT,
    )
    found = re.findall(r"(/\S.*?) \(0x[0-9a-f]+\)", result.stdout)
    libraries = []
    for name in dict.fromkeys(found):
        try:
            libraries.append(read_elf(Path(name)))
        except (OSError, FormatError):
            continue  # the loader's own affair
    return libraries


def run(target: str | None, *, as_json: bool) -> int:
    """Print what `examine` finds; 0 if it can be made concurrent, else 1."""
    try:
        diagnosis = examine(target)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{error.cmd[0]} did not answer within {error.timeout:.0f} s") from None
    if as_json:
        print(json.dumps(diagnosis.to_dict()))
    else:
        print("\n".join(diagnosis.lines()))
    return 0 if diagnosis.can else 1
