"""The `ggml-concurrent` command.

Exit codes: 0 done, 1 the results of the two ways of computing differ, or the doctor says no, 2 the
request cannot be served (one line on standard error says why), 130 interrupted; exec: those of the
program, 126 and 127 as shells have them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ._native import lib
from .bench.machine import usable_processors
from .errors import Error
from .generate import Comparison, Engine
from .info import information, version
from .models.package import package_model
from .progress import Progress
from .report import make_report

EXIT_DIFFERENT, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_PIPE = 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    try:
        options = parser().parse_args(arguments)
        options.arguments = sys.argv[1:] if arguments is None else list(arguments)
        code = int(options.command(options))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left. What Python flushes at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except (Error, OSError, MemoryError) as error:
        print(f"ggml-concurrent: {_one_line(error)}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _one_line(error: Exception) -> str:
    """What an exception says, without its number."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"ggml-concurrent: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    from .bench.command import add_bench  # it takes its kinds of arguments from here

    top = _Parser(
        prog="ggml-concurrent",
        description="Runs the independent operations of a ggml graph at the same time.",
    )
    top.add_argument("--version", action="version", version=f"ggml-concurrent {version()}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    add_bench(commands)
    _add_graphs(commands)
    _add_exec(commands)
    _add_plugin_path(commands)
    _add_doctor(commands)
    _add_info(commands)
    return top


#
# run
#


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="generate text with a GGUF model and report how its graph was computed",
        description="Generates text greedily, then reports the plan and the time per token, "
        "serial and concurrent.",
    )
    run.add_argument(
        "model",
        type=Path,
        nargs="?",
        metavar="MODEL.gguf",
        help="Gemma 3 or Llama architecture (default: Gemma 3 270M of the extra [model])",
    )
    run.add_argument("--prompt", default="The capital of France is", metavar="TEXT")
    run.add_argument("--max-tokens", type=count, default=64, metavar="N", help="default 64")
    run.add_argument(
        "--streams",
        type=stream_count,
        default=2,
        metavar="N",
        help="operations at the same time; 1 is serial (default 2)",
    )
    run.add_argument(
        "--threads",
        type=count,
        default=None,
        metavar="N",
        help="in all, shared out among the streams (default: one per processor)",
    )
    run.add_argument(
        "--always",
        action="store_true",
        help="use the streams also where they do not pay",
    )
    run.add_argument(
        "--json", action="store_true", help="print one JSON object instead of text and report"
    )
    run.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    threads = options.threads or max(usable_processors(), options.streams)
    say = _silent if options.json else _say
    with Progress() as progress:
        progress.show("looking for the model ...")
        path = options.model or package_model()
        progress.show(f"{path.name}: reading the vocabulary ...")
        engine = Engine(path, streams=options.streams, threads=threads, always=options.always)
    with engine:
        ids = engine.tokenizer.encode(options.prompt)
        with Progress() as progress:
            progress.show(f"{path.name}: loading the weights ...")
            engine.load(len(ids) + options.max_tokens)
        say(options.prompt)
        tokens, text, token_ms = _generate(engine, ids, options.max_tokens, say)
        say("\n")
        comparison = _measure(engine, tokens[-1])
        report = make_report(engine, comparison, prompt_tokens=len(ids), token_ms=token_ms)
    if options.json:
        result = {
            "prompt": options.prompt,
            "tokens": tokens,
            "text": text,
            "report": report.to_dict(),
        }
        print(json.dumps(result))
    else:
        print(f"\n{report}")
    return 0 if report.identical else EXIT_DIFFERENT


def _generate(
    engine: Engine, ids: list[int], max_tokens: int, say: Callable[[str], None]
) -> tuple[list[int], str, list[float]]:
    """The generated ids, their text, and how many milliseconds each took."""
    stream = engine.tokenizer.stream()
    tokens: list[int] = []
    parts: list[str] = []
    token_ms: list[float] = []
    last = time.perf_counter()
    for token in engine.generate(ids, max_tokens):
        tokens.append(token)
        parts.append(stream.push(token))
        say(parts[-1])
        now = time.perf_counter()
        token_ms.append((now - last) * 1e3)
        last = now
    parts.append(stream.finish())
    say(parts[-1])
    return tokens, "".join(parts), token_ms


def _measure(engine: Engine, token: int) -> Comparison:
    with Progress() as progress:
        progress.show("measuring ...")
        return engine.compare(token)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _silent(_: str) -> None:
    pass


#
# graphs
#


def _add_graphs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    graphs = commands.add_parser(
        "graphs",
        help="list the zoo: graphs with realistic shapes, and how wide they are",
        description="Lists graphs of the zoo in numbers: nodes; units, which are nodes that "
        "compute something, fused ones together; phases, the longest chain of units; width, the "
        "most units at once; gain, all units one after another over the longest chain, by guessed "
        "costs.",
    )
    graphs.add_argument("graphs", nargs="*", metavar="GRAPH", help="default: all")
    graphs.add_argument(
        "--fuse",
        choices=("none", "cpu", "cuda", "metal"),
        default="cuda",
        help="the backend for which nodes stay together (default cuda)",
    )
    graphs.add_argument("--json", action="store_true", help="print one JSON array")
    graphs.set_defaults(command=_graphs)


def _graphs(options: argparse.Namespace) -> int:
    from .bench.candidates import check_graphs
    from .zoo.catalogue import cards, table

    rows = cards(check_graphs(options.graphs) or None, options.fuse)
    if options.json:
        print(json.dumps([card.to_dict() for card in rows]))
        return 0
    for line in table(rows):
        print(line)
    return 0


#
# other people's runners
#


def _add_exec(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    launch = commands.add_parser(
        "exec",
        help="run another program whose ggml then computes concurrently",
        description="Runs a program that is linked dynamically, with the drop-in loaded ahead of "
        "it: its ggml then computes concurrently, and a line says whether that took hold. Linux.",
    )
    mode = launch.add_mutually_exclusive_group()
    mode.add_argument(
        "--always", action="store_true", help="use streams whether they pay or not, for tests"
    )
    mode.add_argument(
        "--eager", action="store_true", help="look for what is fastest at once, whatever that costs"
    )
    mode.add_argument("--off", action="store_true", help="take hold, and change nothing")
    launch.add_argument(
        "--streams", type=stream_count, default=None, metavar="N", help="at most N (default 8)"
    )
    launch.add_argument("program", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    launch.set_defaults(command=_exec)


def _exec(options: argparse.Namespace) -> int:
    from .launch import replace_process

    command = options.program[options.program[:1] == ["--"] :]
    if not command:
        raise Error("exec: no command is given; for example: ggml-concurrent exec -- python x.py")
    settings = {}
    for mode in ("always", "eager", "off"):
        if getattr(options, mode):
            settings["GGML_CONCURRENT"] = mode
    if options.streams is not None:
        settings["GGML_CONCURRENT_STREAMS"] = str(options.streams)
    sys.stdout.flush()
    return replace_process(command, settings)


def _add_plugin_path(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plugin = commands.add_parser(
        "plugin-path", help="print the drop-in library's path, for GGML_BACKEND_PATH"
    )
    plugin.set_defaults(command=_plugin_path)


def _plugin_path(_: argparse.Namespace) -> int:
    from .dropin import plugin_path

    print(plugin_path())
    return 0


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="say whether a Python environment or a program can be made concurrent",
        description="Looks at a Python, an environment's folder, or a program, and says whether "
        "its ggml can be made concurrent, how, or why not. Exit code 0: it can; 1: it cannot.",
    )
    doctor.add_argument("target", nargs="?", metavar="PROGRAM", help="default: this Python")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import run

    return run(options.target, as_json=options.json)


#
# info
#


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    info = commands.add_parser("info", help="print versions, the CPU module and its features")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.set_defaults(command=_info)


def _info(options: argparse.Namespace) -> int:
    facts = information()
    if options.json:
        print(json.dumps(facts))
        return 0
    for name, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:13} {text}")
    return 0


#
# Arguments
#


def count(text: str) -> int:
    """An argument that is a number of things, at least one."""
    value = _integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def stream_count(text: str) -> int:
    """An argument that is a number of streams."""
    value = count(text)
    if value > lib.GGC_MAX_STREAMS:
        raise argparse.ArgumentTypeError(f"expected at most {lib.GGC_MAX_STREAMS}, got {value}")
    return value


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
