"""`ggml-concurrent doctor`: whether a Python environment or a program can be made concurrent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .dropin import RUNNERS, plugin_path
from .elf import Elf, read_elf
from .errors import DeviceError, FormatError
from .launch import interpreter_of, obstacle, program_of
from .runner import tuning_folder

__all__ = ["Diagnosis", "examine"]

_TIMEOUT = 120.0  # seconds that a package may take to be imported
_PROBE = Path(__file__).parent / "_doctor_probe.py"
_ANSWER = "ggml-concurrent: "  # begins the line that the probe prints
_PYTHON = re.compile(r"(python|pypy)[\d.]*t?")
_MODES = {
    "": "the default, auto",
    "0": "graphs go through as they are",
    "always": "on streams whether that pays or not, for tests",
    "auto": "the default",
    "eager": "as by default, and ways are tried at once, whatever that costs",
    "off": "graphs go through as they are",
}
_OWN_VARIABLES = tuple(
    f"GGML_CONCURRENT{name}"
    for name in ("", "_CACHE", "_EXEC", "_OWN", "_QUIET", "_STREAMS", "_STRESS")
)
# Where preloading takes hold, if they are called through the loader.
_CALLS = ("ggml_backend_sched_new", "ggml_backend_init_by_type")


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
    if path.is_dir():
        python = path / "bin" / "python"
        if not python.exists():
            raise FormatError(f"{target} is a folder without bin/python, so no environment")
        return _examine_python(python)
    if not path.is_file():
        raise FormatError(f"{target} is neither a file nor a folder")
    if _PYTHON.fullmatch(path.name):
        return _examine_python(path)
    interpreter = interpreter_of(path)
    if interpreter is not None:
        return _examine_script(path, interpreter)
    return _examine_program(path)


def _examine_script(path: Path, interpreter: Path) -> Diagnosis:
    program_of(path)  # raises where that has no end
    diagnosis = examine(str(interpreter))
    diagnosis.subject = str(path)
    diagnosis.facts.insert(0, f"it is a script that {interpreter} runs")
    if diagnosis.can:
        diagnosis.advice = f"ggml-concurrent exec -- {path}"
    return diagnosis


#
# A Python environment
#


def _examine_python(python: Path) -> Diagnosis:
    diagnosis = Diagnosis(str(python))
    found = _ask(python, "list", *RUNNERS)
    if "failed" in found:
        diagnosis.facts.append(f"it {found['failed']}")
        return diagnosis
    diagnosis.facts.append(f"Python {found['python']}")
    tried = [_try(python, candidate, diagnosis) for candidate in found["candidates"]]
    diagnosis.facts += [_cache_fact(), *_variable_facts()]
    diagnosis.can = any(any(host["held"] for host in result["hosts"]) for result in tried)
    if any(result["by_import"] and any(h["held"] for h in result["hosts"]) for result in tried):
        diagnosis.advice = "call ggml_concurrent.attach() before a model is loaded"
    elif diagnosis.can:
        diagnosis.advice = (
            "importing it loads no library: call ggml_concurrent.attach() once your program has "
            "loaded it"
        )
    elif any(result.get("error") for result in tried):
        diagnosis.advice = "put right what keeps it from being loaded, and ask again"
    elif not tried:
        diagnosis.facts.insert(1, "no package here brings a ggml along")
        diagnosis.advice = "install llama-cpp-python, or name the program that has a ggml"
    return diagnosis


def _ask(python: Path, *arguments: str) -> dict[str, Any]:
    """What the probe prints in that Python, where nothing but its own ggml is of interest."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GGML_BACKEND_PATH", "LD_PRELOAD") and name not in _OWN_VARIABLES
    }
    environment["GGML_CONCURRENT_QUIET"] = "1"
    try:
        result = subprocess.run(
            [str(python), "-c", _PROBE.read_text(), *arguments],
            check=False, capture_output=True, text=True, errors="replace", env=environment,
            timeout=_TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"did not answer within {_TIMEOUT:.0f} s"}
    # A package may print something of its own, before and after.
    for line in reversed(result.stdout.splitlines()):
        if result.returncode == 0 and line.startswith(_ANSWER):
            return dict(json.loads(line[len(_ANSWER) :]))
    last = (result.stderr.strip().splitlines() or ["no message"])[-1]
    return {"failed": f"{_ending(result.returncode)}: {last}"}


def _ending(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _try(python: Path, candidate: dict[str, Any], diagnosis: Diagnosis) -> dict[str, Any]:
    """Takes hold of one package's ggml in a process of its own."""
    result = _ask(python, "try", str(plugin_path()), json.dumps(candidate))
    name = f"package {candidate['name']} {result.get('version') or candidate['version']}".rstrip()
    if "failed" in result:
        diagnosis.facts.append(f"{name}: the process that tried it {result['failed']}")
        return {"hosts": [], "by_import": False}
    if result["error"]:
        diagnosis.facts.append(f"{name} cannot be loaded: {result['error']}")
    elif not result["hosts"]:
        diagnosis.facts.append(f"{name} has loaded no ggml with exported functions")
    else:
        diagnosis.facts.append(name)
    diagnosis.facts += [_host_fact(host) for host in result["hosts"]]
    return result


def _host_fact(host: dict[str, Any]) -> str:
    where = f"ggml {host['version'] or 'of an unknown version'} in {host['path']}"
    if not host["held"]:
        return f"{where}: left alone, {host['reason'] or 'it has no devices yet'}"
    devices = ", ".join(device["name"] for device in host["devices"])
    return f"{where}: all layouts agree; devices {devices}"


#
# What holds for any program
#


def _cache_fact() -> str:
    folder = tuning_folder()
    if folder is None:
        return "what is found fastest is not kept: there is no cache folder"
    parent = folder if folder.exists() else folder.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        return (
            f"what is found fastest is not kept: {parent} cannot be written to; name another "
            "folder in GGML_CONCURRENT_CACHE"
        )
    return f"what is found fastest is kept in {folder}"


def _variable_facts() -> list[str]:
    facts = []
    for name, value in sorted(os.environ.items()):
        if name.startswith("GGML_CONCURRENT") and name not in _OWN_VARIABLES:
            facts.append(f"{name}={value}: there is no such variable")
        elif name in _MEANINGS:
            meaning = _MEANINGS[name](value)
            facts.append(f"{name}={value}" + (f": {meaning}" if meaning else ""))
    return facts


def _streams(value: str) -> str:
    is_number = value.isascii() and value.isdigit() and 1 <= int(value) <= 64
    return "" if is_number or not value else "expected a number from 1 to 64; left out"


def _backend_path(value: str) -> str:
    return "the drop-in" if value == str(plugin_path()) else "another backend, not the drop-in"


def _mode(value: str) -> str:
    return _MODES.get(value, "expected off, auto, eager or always; taken for auto")


_MEANINGS = {
    "GGML_CONCURRENT": _mode,
    "GGML_CONCURRENT_QUIET": lambda value: "nothing is said" if value not in ("", "0") else "",
    "GGML_CONCURRENT_STREAMS": _streams,
    "GGML_BACKEND_PATH": _backend_path,
    "GGML_CUDA_GRAPH_OPT": lambda _: "on CUDA, streams are ggml's own affair then",
    "LD_PRELOAD": lambda _: "",
}


#
# A program
#


def _examine_program(path: Path) -> Diagnosis:
    program = read_elf(path)
    diagnosis = Diagnosis(str(path))
    reason = "" if program.is_library else obstacle(path)
    if reason:
        diagnosis.facts.append(reason)
        if not program.interpreter:
            diagnosis.advice = "build it with shared libraries (BUILD_SHARED_LIBS=ON)"
        return diagnosis
    diagnosis.facts.append("it is a library" if program.is_library else "it is linked dynamically")
    libraries, missing = _libraries(program)
    if missing:
        diagnosis.facts += missing
        diagnosis.advice = "it does not start as it is: put that right first"
        return diagnosis
    _judge(diagnosis, program, [program, *libraries])
    return diagnosis


def _judge(diagnosis: Diagnosis, program: Elf, parts: list[Elf]) -> None:
    with_ggml = [part for part in parts if "ggml_backend_dev_get" in part.exports]
    callers = [part for part in parts if part.imports.intersection(_CALLS)]
    loaders = [part for part in parts if _loads_backends(part, with_ggml)]
    diagnosis.facts += [f"{part.path} has ggml's devices" for part in with_ggml]
    diagnosis.facts += [
        f"{part.path} calls {next(name for name in _CALLS if name in part.imports)}, where "
        "preloading takes hold"
        for part in callers
    ]
    diagnosis.facts += [
        f"{part.path} loads backends while it runs: GGML_BACKEND_PATH works as well"
        for part in loaders
    ]
    if program in with_ggml and not callers and not program.is_library:
        diagnosis.facts.append("it calls ggml within itself, and preloading does not see that")
    if program.is_library:
        diagnosis.can = bool(with_ggml or callers)
        diagnosis.advice = "look at the program that loads it, or call attach() from there"
    elif callers and with_ggml:
        diagnosis.can = True
        diagnosis.advice = f"ggml-concurrent exec -- {program.path}"
    elif loaders:
        diagnosis.can = True
        diagnosis.advice = f"GGML_BACKEND_PATH=$(ggml-concurrent plugin-path) {program.path}"
    elif with_ggml:
        diagnosis.advice = "attach() from inside of it, once its ggml is loaded"
    else:
        diagnosis.facts.append("it is linked with no ggml; what it loads while it runs is not seen")
        diagnosis.advice = (
            f"try: ggml-concurrent exec -- {program.path} (it says whether it took hold)"
        )


def _loads_backends(part: Elf, with_ggml: list[Elf]) -> bool:
    """Whether it has ggml load backends. libllama does only where none is linked with its ggml."""
    if not any(name.startswith("ggml_backend_load_all") for name in part.imports):
        return False
    is_linked = any(
        name.startswith("libggml-") and not name.startswith("libggml-base")
        for ggml in with_ggml
        for name in ggml.needed
    )
    return "llama_backend_init" not in part.exports or not is_linked


def _libraries(program: Elf) -> tuple[list[Elf], list[str]]:
    """What the loader would load with the program, which is not run; and what it does not find."""
    environment = {**os.environ, "LC_ALL": "C", "LD_TRACE_LOADED_OBJECTS": "1"}
    environment.pop("LD_PRELOAD", None)
    interpreter = program.interpreter or read_elf(Path(sys.executable)).interpreter
    result = subprocess.run(
        [interpreter, str(program.path.resolve())],
        check=False, capture_output=True, text=True, errors="replace", env=environment,
        timeout=_TIMEOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    told = result.stdout + result.stderr
    missing = [
        f"{name} is not found" + (f", nor in {program.runpath}" if program.runpath else "")
        for name in dict.fromkeys(re.findall(r"^\s*(\S+) => not found", told, re.MULTILINE))
    ]
    missing += dict.fromkeys(re.findall(r"\S+: version `.*' not found.*", told))
    libraries = []
    for name in dict.fromkeys(re.findall(r"(/\S.*?) \(0x[0-9a-f]+\)", result.stdout)):
        try:
            libraries.append(read_elf(Path(name)))
        except (OSError, FormatError):
            continue  # the loader's own affair
    return libraries, missing


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
