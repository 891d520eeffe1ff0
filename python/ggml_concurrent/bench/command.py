"""`ggml-concurrent bench`: its options, and what becomes of the results."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from .. import cli
from ..dtypes import dtype_of
from ..errors import Error
from ..progress import Progress
from . import candidates, device, graphs, machine, measure, page, results_file, table
from .results import COMPLETE, INTERRUPTED, Results, Settings

RUNS = 30
PROCESSES = 3
STREAMS = {"cpu": 2, "cuda": 8}  # by the kind of device
_BAR = 24


def add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to a command line."""
    bench = commands.add_parser(
        "bench",
        help="measure graphs of the zoo, computed in several ways",
        description="Measures graphs of the zoo with random weights, computed in several ways "
        "that take turns, and compares their bits.",
    )
    default = "; ".join(f"{k}: {' '.join(v)}" for k, v in candidates.DEFAULT_GRAPHS.items())
    bench.add_argument(
        "graphs",
        nargs="*",
        metavar="GRAPH",
        help="of the zoo, or one in another size: NAME@tokens=8,past=8191,dtype=f16,flash=1 "
        f"(default {default})",
    )
    bench.add_argument("--device", metavar="NAME", help="cpu or cuda0, cuda1, ... (default cpu)")
    compared = "; ".join(f"{k}: {','.join(v)}" for k, v in candidates.COMPARED.items())
    known = "; ".join(f"{c.name} ({c.about})" for c in candidates.CANDIDATES.values())
    bench.add_argument(
        "--compare",
        metavar="A,B,...",
        help=f"ways of computing: {known} (default {compared})",
    )
    bench.add_argument("--runs", type=cli.count, metavar="N", help=f"of each (default {RUNS})")
    bench.add_argument(
        "--processes",
        type=cli.count,
        metavar="N",
        help=f"of each, one after another, that share the runs (default {PROCESSES})",
    )
    bench.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help=f"fewer runs of a graph once it has had that time, but {measure.LEAST_ROUNDS}",
    )
    streams = ", ".join(f"{n} on {kind}" for kind, n in STREAMS.items())
    bench.add_argument("--streams", type=cli.stream_count, metavar="N", help=f"default {streams}")
    bench.add_argument(
        "--threads", type=cli.count, metavar="N", help="in all (default: one per processor)"
    )
    bench.add_argument("--tokens", type=cli.count, metavar="N", help="computed at once")
    bench.add_argument("--past", type=_past, metavar="N", help="tokens in the caches before them")
    bench.add_argument("--dtype", metavar="TYPE", help="of the matrices, such as q4_0")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    bench.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures there")
    bench.add_argument(
        "--timeline", metavar="GRAPH", help="show when its operations ran, on the page"
    )
    bench.add_argument(
        "--repeat-from",
        type=Path,
        metavar="results.json",
        help="measure the same again, old ratios beside new ones",
    )
    bench.add_argument(
        "--without-cuda-graphs",
        action="store_true",
        help="compare with a ggml that was built or set up without CUDA graphs",
    )
    bench.set_defaults(command=_bench)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, got {text!r}")
    return value


def _past(text: str) -> int:
    return 0 if text == "0" else cli.count(text)


def _bench(options: argparse.Namespace) -> int:
    old = _old_results(options)
    settings = _settings(options) if old is None else old.settings
    settings = _checked(settings)
    _check_files([f for f in (options.json, options.html) if f is not None])
    results = Results(
        when=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        command=shlex.join(["ggml-concurrent", *options.arguments]),
        machine={**machine.describe(), **device.describe(settings.device)},
        settings=settings,
    )
    failure = _measure(results)
    results.prune()
    if results.graphs or failure is None:
        _write(results, old, options)
    if failure is not None:
        raise failure
    if results.differences:
        return cli.EXIT_DIFFERENT
    return 0 if results.state == COMPLETE else cli.EXIT_INTERRUPTED


def _write(results: Results, old: Results | None, options: argparse.Namespace) -> None:
    """The files first: nobody may be reading standard output any more."""
    if options.json:
        options.json.write_text(results_file.dump(results), encoding="utf-8")
    if options.html:
        options.html.write_text(page.page(results, old), encoding="utf-8")
    sys.stdout.write(table.text(results, old) + "\n")


def _measure(results: Results) -> Exception | None:
    """Measures; returns the error that ended it, if one did."""
    with Progress() as progress:

        def tell(share: float, text: str) -> None:
            full = round(share * _BAR)
            line = f"[{'#' * full}{'.' * (_BAR - full)}] {100 * share:3.0f} % {text}"
            progress.show(line[: shutil.get_terminal_size().columns - 1])

        try:
            measure.measure(results, tell)
        except KeyboardInterrupt:
            results.state = INTERRUPTED
        except (Error, OSError, MemoryError) as error:
            return error
    return None


#
# What was asked for
#

_REPEATED = (
    "device",
    "compare",
    "runs",
    "processes",
    "seconds",
    "streams",
    "threads",
    "tokens",
    "past",
)


def _old_results(options: argparse.Namespace) -> Results | None:
    """The results to repeat, if that was asked for; then nothing else may be."""
    if options.repeat_from is None:
        return None
    names = (*_REPEATED, "dtype", "timeline")
    given = [f"--{name}" for name in names if getattr(options, name) is not None]
    given = ["graphs"] * bool(options.graphs) + given
    given += ["--without-cuda-graphs"] * options.without_cuda_graphs
    if given:
        raise Error(f"--repeat-from measures the same again: leave out {', '.join(given)}")
    return results_file.load_file(options.repeat_from)


def _settings(options: argparse.Namespace) -> Settings:
    name = options.device or "cpu"
    kind = candidates.kind_of(name)
    kind = kind if kind in candidates.DEVICES else "cpu"  # what it is instead is told later
    streams = options.streams or STREAMS[kind]
    compared = options.compare.split(",") if options.compare is not None else None
    asked = dict.fromkeys(options.graphs or candidates.DEFAULT_GRAPHS[kind])
    if options.timeline is not None:
        asked[options.timeline] = None
    return Settings(
        graphs=tuple(asked),
        candidates=tuple(c.strip() for c in compared or candidates.COMPARED[kind]),
        device=name,
        runs=options.runs or RUNS,
        processes=min(options.processes or PROCESSES, options.runs or RUNS),
        seconds=options.seconds,
        streams=streams,
        threads=options.threads or max(machine.usable_processors(), streams),
        n_tokens=options.tokens,
        n_past=options.past,
        dtype=options.dtype,
        timeline=options.timeline,
        without_cuda_graphs=options.without_cuda_graphs,
    )


def _checked(settings: Settings) -> Settings:
    """The settings, if they can be measured: found out before the long work starts."""
    graphs.check(settings.graphs)
    candidates.choose(settings.candidates, settings.device)
    if settings.dtype is not None:
        dtype_of(settings.dtype)
    device.check(settings.device, without_cuda_graphs=settings.without_cuda_graphs)
    return settings


def _check_files(files: Sequence[Path]) -> None:
    """Raises OSError where a file cannot be written, and leaves none behind."""
    if len({file.absolute() for file in files}) < len(files):
        raise Error("--json and --html name the same file")
    for file in files:
        new = not file.exists()
        file.open("ab").close()
        if new:
            file.unlink()
