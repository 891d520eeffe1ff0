"""`ggml-concurrent bench`: statistics, tables, files, pages, and small races of real processes."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tools import Terminal

import ggml_concurrent as ggc
from ggml_concurrent import cli, zoo
from ggml_concurrent.bench import (
    burst,
    candidates,
    chart,
    device,
    graphs,
    machine,
    measure,
    page,
    results_file,
    study,
    table,
    traffic,
)
from ggml_concurrent.bench.results import (
    COMPLETE,
    INTERRUPTED,
    Bandwidth,
    Facts,
    GraphResult,
    Measured,
    Process,
    Results,
    Settings,
    Span,
    Timeline,
)
from ggml_concurrent.bench.summary import summary
from ggml_concurrent.bench.worker import Job, Worker
from ggml_concurrent.zoo.builder import Builder

SETTINGS = Settings(
    graphs=("towers-tiny",),
    candidates=("serial", "serial1", "streams"),
    device="cpu",
    runs=3,
    processes=1,
    seconds=None,
    streams=2,
    threads=2,
    n_tokens=None,
    n_past=None,
    dtype=None,
    timeline="towers-tiny",
)


def example() -> Results:
    """Results with round numbers: serial 4 ms, serial1 2 ms, streams 1 ms; 1 MB read."""
    facts = Facts(30, 30, 6, 5, 2_000_000, 1_000_000, 768, work_ms=1.5, critical_ms=0.25)
    measured = [
        Measured("serial", [Process("serial", 1, 2, 0.5, 1 << 20, 10, [4.0, 3.0, 5.0])]),
        Measured("serial1", [Process("serial", 1, 1, 0.5, 1 << 20, 20, [2.0, 2.0, 2.0])]),
        Measured("streams", [Process("list", 2, 2, 0.5, 2 << 20, 40, [1.0, 0.9, 1.4])]),
    ]
    spans = [Span(0, 0.0, 10.0, "MUL_MAT", "MUL_MAT 'a<b>&\"c'"), Span(1, 4.0, 8.0, "RELU", "r")]
    graph = GraphResult(
        "towers-tiny", "chains <&>", "f32", 1, 0, 4.0, facts, measured,
        [Timeline("streams", 2, 12.0, spans)],
    )  # fmt: skip
    return Results(
        "2026-11-23 08:00 UTC",
        "ggml-concurrent bench",
        {"processor": "A & B"},
        SETTINGS,
        COMPLETE,
        Bandwidth(2.0, 1 << 20, 2),
        [graph],
    )


#
# Statistics
#


def test_statistics_of_given_numbers() -> None:
    s = summary([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (s.runs, s.median, s.low, s.high, s.quartiles) == (5, 3.0, 1.0, 5.0, (2.0, 4.0))
    assert s.spread == pytest.approx(2 / 3)


def test_one_time_has_no_spread() -> None:
    s = summary([7.0])
    assert (s.runs, s.median, s.low, s.high, s.spread) == (1, 7.0, 7.0, 7.0, 0.0)


def test_two_times() -> None:
    s = summary([1.0, 3.0])
    assert (s.median, s.quartiles) == (2.0, (1.5, 2.5))


def test_the_baseline_is_the_faster_serial_one_and_never_a_concurrent_one() -> None:
    graph = example().graphs[0]
    assert graph.baseline is graph.of("serial1")
    graph.of("serial").processes[0].times_ms = [1.5]
    assert graph.baseline is graph.of("serial")
    graph.measured = [m for m in graph.measured if m.candidate == "streams"]
    assert graph.baseline is None
    assert graph.ratio(graph.measured[0]) is None


def test_ratios() -> None:
    graph = example().graphs[0]
    streams = graph.of("streams")
    assert graph.ratio(streams) == 2.0
    assert graph.ratio(streams, "serial") == 4.0
    assert graph.ratio(streams, "levels") is None


def test_bandwidth_and_bound() -> None:
    graph = example().graphs[0]
    assert graph.gb_per_s(graph.of("streams")) == 1.0
    # 1 MB at the faster of 2 (memory) and 4 GB/s (as many bytes) is 0.25 ms
    assert graph.bytes_ms(2.0) == pytest.approx(0.25)
    assert graph.bytes_ms(10.0) == pytest.approx(0.1)
    assert graph.bound_ms(10.0) == pytest.approx(0.25)  # the critical path is longer
    graph.copy_gb_per_s = 1.0
    assert graph.bound_ms(1.0) == pytest.approx(1.0)


def test_critical_path() -> None:
    deps = [(), (), (0,), (0, 1), (2, 3), ()]
    assert study.critical_us(deps, [1, 5, 10, 2, 1, 3]) == 12
    assert study.critical_us(deps, [1, 5, 1, 2, 1, 30]) == 30
    assert study.critical_us([], []) == 0


@pytest.mark.parametrize(("total", "expected"), [(9, [1, 2]), (2.4, [0.8, 1.6]), (1, [0.5, 1])])
def test_tracing_is_taken_off_the_durations(total: float, expected: list[float]) -> None:
    assert list(study.scaled(np.array([1.0, 2.0]), total)) == pytest.approx(expected)


def test_pruning_forgets_what_has_no_times() -> None:
    results = example()
    results.graphs[0].of("streams").processes[0].times_ms = []
    empty = copy.deepcopy(results.graphs[0])
    for m in empty.measured:
        m.processes[0].times_ms = []
    results.graphs.append(empty)
    results.prune()
    assert [[m.candidate for m in g.measured] for g in results.graphs] == [["serial", "serial1"]]


#
# Candidates
#


def test_arguments_of_candidates() -> None:
    c = candidates.CANDIDATES
    assert c["serial"].runner_arguments(3, 4) == {"streams": 1, "threads": 4}
    assert c["serial1"].runner_arguments(3, 4) == {"streams": 1, "threads": 1}
    assert c["streams"].runner_arguments(3, 4) == {"streams": 3, "threads": 4, "always": True}
    assert c["levels"].runner_arguments(3, 4)["strategy"] == "levels"
    assert c["default"].runner_arguments(3, 4) == {"streams": 3, "threads": 4}


def test_default_graphs_are_in_the_zoo() -> None:
    assert "towers-256" in candidates.CPU_DEFAULT
    for names in candidates.DEFAULT_GRAPHS.values():
        graphs.check(names)
        assert not [name for name in names if "-tiny" in name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-graph"], "towers-256"),
        (["towers-tiny", "--timeline", "no-such-graph"], "no-such-graph"),
        (["--compare", "serial,fastest"], "'fastest'"),
        (["--compare", ""], "no candidate ''"),
        (["--compare", "serial,streams,serial"], "'serial' is named twice"),
        (["--compare", "streams,default"], "serial, serial1"),
        (
            ["--compare", "serial,graph-opt"],
            "'graph-opt' exists for cuda only, not for device 'cpu'",
        ),
        (["--compare", "serial,direct"], "cuda only"),
        (["--compare", "serial,graph-opt", "--device", "cuda0"], "there is no CUDA"),
        (["--compare", "serial1", "--device", "cuda0"], "cpu only"),
        (["--device", "warp"], "not on 'warp'"),
        (["--device", "metal"], "cpu and cuda only, not on 'metal'"),
        (["towers-tiny@tokens=0"], "tokens is '0', expected a whole number, 1 or more"),
        (["towers-tiny@past=-1"], "past is '-1'"),
        (["towers-tiny@dtype=q9_9"], "q9_9"),
        (["towers-tiny@flash=yes"], "expected 0 or 1"),
        (["towers-tiny@layers=3"], "no argument 'layers'; there are: tokens, past, dtype, flash"),
        (["towers-tiny@tokens=1,tokens=2"], "'tokens' is named twice"),
        (["towers-tiny@"], "no argument ''"),
        (["nothing@tokens=1"], "no graph 'nothing'"),
        (["--runs", "0"], "--runs"),
        (["--runs", "many"], "--runs"),
        (["--processes", "0"], "--processes"),
        (["--seconds", "-1"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--streams", "65"], "64"),
        (["--threads", "0"], "--threads"),
        (["--tokens", "0"], "--tokens"),
        (["--past", "-1"], "--past"),
        (["--dtype", "q9_9"], "q9_9"),
        (["--json", "/nowhere/x.json"], "/nowhere/x.json"),
        (["--html", "/"], "/: "),
        (["--json", "TMP/same", "--html", "TMP/same"], "same file"),
        (["--repeat-from", "/nowhere/x.json"], "/nowhere/x.json"),
        (["--repeat-from", __file__], "not JSON"),
        (["--repeat-from", "x", "--runs", "3"], "leave out --runs"),
        (["towers-tiny", "--repeat-from", "x", "--dtype", "f16"], "leave out graphs, --dtype"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_is_measured(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("it was measured"))
    arguments = [a.replace("TMP", str(tmp_path)) for a in arguments]
    try:
        code = cli.main(["bench", *arguments])
    except SystemExit as left:  # argparse's own way out
        code = left.code
    out, errors = capsys.readouterr()
    assert (code, out) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("ggml-concurrent: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


#
# Tables
#


def cells(text: str, *start: str) -> list[str]:
    """The cells of the table row that starts so."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    (row,) = [row for row in rows if row[: len(start)] == list(start)]
    return row


def test_table_text() -> None:
    text = str(table.race(example()))
    head = "graph|candidate|ratio|/ serial|/ serial1|median ms|min|max|spread|runs|way|GB/s|"
    head += "of copy|of bound|planning ms|buffer MiB|bits"
    assert cells(text, "graph") == head.split("|")
    row = "2.00x|4.00x|2.00x|1.000|0.9000|1.400|25 %|3|list 2/2|1.0|50 %|25 %|0.500|2.000|same"
    assert cells(text, "towers-tiny", "streams")[2:] == row.split("|")
    assert cells(text, "towers-tiny", "serial")[2:5] == ["0.50x", "1.00x", "0.50x"]
    assert len({len(line) for line in text.splitlines()}) == 1, "columns are aligned"


def test_table_of_graphs() -> None:
    row = cells(str(table.graphs(example())), "towers-tiny")
    assert row[1:] == "f32|1|0|30|30|6|5|1.00|1.500|0.2500|0.2500|0.2500|0.0007|-".split("|")


def test_numbers_that_are_not_known_are_dashes() -> None:
    results = example()
    results.bandwidth = None
    text = str(table.race(results))
    assert cells(text, "towers-tiny", "streams")[12:14] == ["-", "-"]
    assert cells(str(table.graphs(results)), "towers-tiny")[-3] == "-"


def test_one_serial_candidate_needs_no_columns_of_its_own() -> None:
    results = example()
    assert "/ serial" in str(table.race(results))
    results.settings = dataclasses.replace(SETTINGS, candidates=("serial", "streams"))
    assert "/ serial" not in str(table.race(results))


def test_old_ratios_stand_beside_new_ones() -> None:
    old = example()
    old.graphs[0].of("streams").processes[0].times_ms = [4.0]
    text = str(table.race(example(), old))
    assert cells(text, "graph")[2:4] == ["ratio", "was"]
    assert cells(text, "towers-tiny", "streams")[2:4] == ["2.00x", "0.50x"]
    old.graphs = []
    assert cells(str(table.race(example(), old)), "towers-tiny", "streams")[3] == "-"


def test_different_bits_are_loud() -> None:
    results = example()
    results.graphs[0].of("streams").differs = ["y0", "y3"]
    text = table.text(results)
    assert cells(text, "towers-tiny", "streams")[-1] == "DIFFERENT"
    assert text.splitlines()[-1] == (
        "DIFFERENT BITS: towers-tiny, streams: y0, y3 differ from serial"
    )
    assert "DIFFERENT BITS: towers-tiny, streams" in page.page(results)


def test_disturbed_times_say_so() -> None:
    results = example()
    results.graphs[0].others = 0.04
    assert "DISTURBED" not in table.text(results) + page.page(results)
    results.graphs[0].others = 0.256
    for text in (table.text(results), page.page(results)):
        assert "DISTURBED: towers-tiny: other processes took 26 % of the processors" in text


BUSY = "import time\nend = time.perf_counter() + 1\nwhile time.perf_counter() < end: pass"


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="reads /proc/stat")
def test_what_other_processes_take_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        theirs, ours = machine.Load([]), machine.Load([process.pid])
        time.sleep(0.8)
        seen, rest = theirs.others(), ours.others()
    assert seen is not None
    assert rest is not None
    assert seen > 0.1 / (os.cpu_count() or 1)
    assert rest < seen


def test_unfinished_results_say_so() -> None:
    results = example()
    assert "INTERRUPTED" not in table.text(results) + page.page(results)
    results.state = INTERRUPTED
    assert "INTERRUPTED" in table.text(results)
    assert "INTERRUPTED" in page.page(results)


#
# Files
#


def test_json_round_trip() -> None:
    results = example()
    assert results_file.load(results_file.dump(results)) == results


def put(value: Any) -> Callable[[Any, Any], None]:
    def change(holder: Any, key: Any) -> None:
        holder[key] = value

    return change


def remove(holder: Any, key: Any) -> None:
    del holder[key]


M = "results.graphs[0].measured[0]"
PATH = "results.graphs.0.measured.0"
P = f"{M}.processes[0]"
ROWS = [
    (put("other"), "format", "format"),
    (put(1), "version", "version"),
    (put(True), "version", "version"),
    (remove, "version", "'version' is missing"),
    (put(1), "extra", "'extra' is unknown"),
    (put([]), "results", "results: expected an object"),
    (put(1), "results.when", "results.when: expected a text"),
    (put([]), "results.machine", "results.machine: expected an object"),
    (put(3), "results.machine.processor", "results.machine.processor: expected a text"),
    (put("done"), "results.state", "results.state: expected complete"),
    (put(1.5), "results.settings.runs", "results.settings.runs: expected a whole number"),
    (put(0), "results.settings.runs", "results.settings.runs: expected 1 or more"),
    (put(0), "results.settings.threads", "results.settings.threads: expected 1 or more"),
    (put("2"), "results.settings.streams", "results.settings.streams: expected a whole"),
    (put([]), "results.settings.graphs", "results.settings.graphs: expected at least one"),
    (put("a"), "results.settings.candidates", "results.settings.candidates: expected a list"),
    (put([1]), "results.settings.graphs", "results.settings.graphs[0]: expected a text"),
    (remove, "results.settings.dtype", "results.settings: 'dtype' is missing"),
    (put(0), "results.settings.without_cuda_graphs", "graphs: expected true or false, got 0"),
    (put(-1), "results.bandwidth.gb_per_s", "results.bandwidth.gb_per_s: expected a number"),
    (put(math.nan), "results.bandwidth.gb_per_s", "results.bandwidth.gb_per_s"),
    (put(math.inf), "results.bandwidth.gb_per_s", "results.bandwidth.gb_per_s"),
    (put({}), "results.graphs", "results.graphs: expected a list"),
    (put(None), "results.graphs.0.facts", "results.graphs[0].facts: expected an object"),
    (put("5"), "results.graphs.0.facts.width", "results.graphs[0].facts.width"),
    (put("x"), "results.graphs.0.facts.critical_ms", "facts.critical_ms: expected a number"),
    (put("fast"), "results.graphs.0.measured.0.candidate", f"{M}.candidate"),
    (put("streams"), "results.graphs.0.measured.0.candidate", "measured[2].candidate"),
    (put([]), f"{PATH}.processes.0.times_ms", f"{P}.times_ms: expected at least one"),
    (put(0), f"{PATH}.processes.0.times_ms.1", f"{P}.times_ms: expected at least one"),
    (put("1"), f"{PATH}.processes.0.times_ms.1", f"{P}.times_ms[1]: expected a number"),
    (put(True), f"{PATH}.processes.0.burst", f"{P}.burst: expected a whole number"),
    (put([]), f"{PATH}.processes", f"{M}.processes: expected at least one"),
    (put([0]), f"{PATH}.differs", f"{M}.differs[0]: expected a text"),
    (put(1), "results.graphs.0.timelines.0.spans.1.op", "timelines[0].spans[1].op: expected"),
    (remove, "results.graphs.0.timelines.0.spans.1.op", "spans[1]: 'op' is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "path", "message"), ROWS)
def test_a_malformed_field_is_named(
    change: Callable[[Any, Any], None], path: str, message: str
) -> None:
    document = json.loads(results_file.dump(example()))
    holder: Any = document
    *way, last = [int(k) if k.isdigit() else k for k in path.split(".")]
    for key in way:
        holder = holder[key]
    change(holder, last)
    with pytest.raises(ggc.FormatError, match=re.escape(message)):
        results_file.load(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe"])
def test_what_is_no_results_file_is_refused(text: str | bytes) -> None:
    with pytest.raises(ggc.FormatError):
        results_file.load(text)


#
# Pages
#


class Tags(HTMLParser):
    """Collects tags, and fails where they are not closed in order."""

    VOID = frozenset({"meta", "br", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else() -> None:
    text = page.page(example(), example())
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314  it is ours
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
    names = {tag for tag, _ in tags.seen}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "use"})
    assert not [a for _, attributes in tags.seen for a in attributes if a in ("src", "href")]
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_shows_bars_whiskers_and_timeline() -> None:
    text = page.page(example())
    for candidate in ("serial", "serial1", "streams"):
        assert f'class="bar c-{candidate}"' in text
    assert text.count('class="whisker"') == 9
    assert text.count('class="unit k-') == 2
    assert "MUL_MAT &#x27;a&lt;b&gt;&amp;&quot;c&#x27;: 0.0 to 10.0 µs" in text
    assert "chains &lt;&amp;&gt;" in text
    for kind in ("MUL_MAT", "RELU"):
        assert f"</svg> {kind}</span>" in text


def test_pictures_stand_alone() -> None:
    found = page.pictures(example())
    assert set(found) == {f"{g.name}-times" for g in example().graphs} | {
        f"{g.name}-{line.candidate}" for g in example().graphs for line in g.timelines
    }
    assert len(found) > 1
    for text in found.values():
        root = ET.fromstring(text)  # noqa: S314  it is ours
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "--fore" in text
        assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}


def rectangles(svg: str, css: str) -> list[dict[str, float]]:
    found = re.findall(rf'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"[^>]*{css}', svg)
    return [dict(zip("xyw", map(float, numbers), strict=True)) for numbers in found]


def test_bars_are_as_long_as_the_times() -> None:
    serial, serial1, streams = rectangles(chart.bars(example().graphs[0]), "bar")
    assert serial["w"] / serial1["w"] == pytest.approx(2, rel=0.01)
    assert serial1["w"] / streams["w"] == pytest.approx(2, rel=0.01)
    assert serial["y"] < serial1["y"] < streams["y"]


def test_a_wild_whisker_does_not_squeeze_the_bars() -> None:
    graph = example().graphs[0]
    graph.of("streams").processes[0].times_ms = [1.0, 1.0, 1e6]
    serial, *_ = rectangles(chart.bars(graph), "bar")
    assert serial["w"] > 100


def test_units_stand_where_and_when_they_ran() -> None:
    line = example().graphs[0].timelines[0]
    first, second = rectangles(chart.timeline(line, chart.kinds([line]), 10.0), "unit")
    assert first["w"] == pytest.approx(2.5 * second["w"], rel=0.01)
    assert second["x"] - first["x"] == pytest.approx(second["w"], rel=0.01)
    assert second["y"] > first["y"]


def test_colours_go_to_the_operations_that_take_longest() -> None:
    spans = [Span(0, 0.0, float(i), f"OP{i}", "x") for i in range(1, 20)]
    colours = chart.kinds([Timeline("streams", 1, 1.0, spans)])
    assert list(colours) == [f"OP{i}" for i in range(19, 19 - chart.KINDS, -1)]


@pytest.mark.parametrize(
    ("end", "step"), [(10, 2), (8, 1), (700, 100), (85, 20), (0.03, 0.005), (40_000, 5000)]
)
def test_axes_have_round_steps(end: float, step: float) -> None:
    assert chart.round_step(end, 8) == pytest.approx(step)


#
# Bytes
#


@pytest.fixture
def builder() -> Iterator[Builder]:
    b = Builder(dtype="f32")
    yield b
    b.close()


def bytes_of(b: Builder) -> int:
    entry = zoo.Entry("x", "x", lambda *_: None, {})
    return traffic.bytes_read(zoo.Workload(entry, b))


def test_every_weight_counts_once(builder: Builder) -> None:
    w, x = builder.matrix("w", 8, 4), builder.activations("x", 8)
    builder.output(builder.g.mul_mat(w, x), "a")
    builder.output(builder.g.mul_mat(w, builder.g.relu(x)), "b")
    builder.matrix("unused", 8, 4)
    assert bytes_of(builder) == 8 * 4 * 4


def test_looked_up_rows_count_once(builder: Builder) -> None:
    t = builder.table("t", 16, 100)
    ids = builder.input("ids", "i32", np.array([3, 5, 3], np.int32))
    builder.output(builder.g.get_rows(t, ids), "a")
    assert bytes_of(builder) == 2 * 16 * 4


def test_views_count_for_what_they_show(builder: Builder) -> None:
    c = builder.cache("c", "f32", (4, 10))
    g = builder.g
    builder.output(g.relu(g.view_2d(c, 4, 2, 16, 0)), "rows 0, 1")
    builder.output(g.abs(g.view_2d(c, 4, 2, 16, 16)), "rows 1, 2")
    builder.output(g.neg(g.view_2d(c, 1, 2, 16, 16 * 5)), "one value of rows 5, 6")
    assert bytes_of(builder) == 3 * 16 + 2 * 4


def test_where_a_copy_lies_is_not_read(builder: Builder) -> None:
    c, x = builder.cache("c", "f32", (4, 10)), builder.activations("x", 4)
    g = builder.g
    g.expand(g.cpy(g.neg(x), g.view_1d(c, 4, 16)))
    builder.output(g.relu(x), "y")
    assert bytes_of(builder) == 0


def test_only_chosen_experts_count(builder: Builder) -> None:
    w = builder.matrix("w", 8, 4, 16)
    x = builder.activations("x", 8, 1, 1)
    ids = builder.input("ids", "i32", np.array([[2, 7, 9]], np.int32))
    builder.output(builder.g.mul_mat_id(w, x, ids), "y")
    assert bytes_of(builder) == 3 * 8 * 4 * 4


def test_copying_has_a_speed() -> None:
    assert 0.1 < traffic.copy_gb_per_s(4 << 20, 2) < 10_000


def test_serial_memory_is_that_of_ggmls_allocator() -> None:
    with zoo.build("towers-tiny") as workload:
        size = study.serial_buffer_size(workload)
        apart = sum(t.nbytes for t in workload.graph.nodes)
        with workload.runner(streams=1, budget=0) as runner:
            shared = runner.buffer_size
    assert size is not None
    assert 5 * 32 * 4 <= size <= min(apart, shared)


#
# Workers
#


class Clock:
    """A compute that takes a given time of a clock that only it moves."""

    def __init__(self, ms: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ms, self.calls = ms, 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.calls * ms / 1e3)

    def compute(self) -> None:
        self.calls += 1


@pytest.mark.parametrize("ms", [0.01, 1.0, 30.0])
def test_bursts_last_long_enough(ms: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(ms, monkeypatch)
    n = burst.burst_for(clock.compute)
    assert n * ms >= burst.BURST_MS * (1 - 1e-9)
    assert (n - 1) * ms < 2 * burst.BURST_MS


@pytest.mark.parametrize(("ms", "calls"), [(1.0, 25), (10.0, 3), (100.0, 1)])
def test_what_comes_before_a_burst(ms: float, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(ms, monkeypatch)
    burst.warm_up(clock.compute)
    assert clock.calls == calls
    assert burst.mean_ms(clock.compute, 4) == pytest.approx(ms)
    assert clock.calls == calls + 4


def test_a_worker_computes_checks_and_times() -> None:
    job = {"graph": "towers-tiny", "runner": {"streams": 1, "threads": 1}}
    with Worker(job, {"SOME_VARIABLE": "1"}, "it") as worker:
        first = worker.ask("check", computes=2)["hashes"]
        outputs = [f"y{i}" for i in range(5)]
        assert set(first) == {*outputs, *(f"{name}, other inputs" for name in outputs)}
        assert all(first[name] != first[f"{name}, other inputs"] for name in outputs)
        assert worker.ask("check", computes=2)["hashes"] == first
        assert worker.ask("check", computes=3)["hashes"] != first
        process = Process(**worker.ask("settle"))
        assert (process.strategy, process.streams, process.threads) == ("serial", 1, 1)
        assert process.planning_ms > 0 < process.buffer_bytes
        assert process.burst >= 1
        assert 0 < worker.ask("time")["ms"] * process.burst < 1000 * burst.BURST_MS
        with pytest.raises(ggc.Error, match="it: no request 'dance'"):
            worker.ask("dance")
        assert worker.ask("time")["ms"] > 0, "an error does not end it"


def test_a_worker_that_cannot_build_says_why() -> None:
    with pytest.raises(ggc.Error, match=r"it: no graph 'nothing' in the zoo"):
        Worker({"graph": "nothing"}, what="it")


def test_a_worker_that_dies_is_named() -> None:
    with Worker({"graph": "towers-tiny"}, what="towers-tiny, streams") as worker:
        worker._process.kill()
        with pytest.raises(ggc.Error, match=r"towers-tiny, streams ended by signal 9"):
            worker.ask("time")


def drifting_entry() -> zoo.Entry:
    """A graph with a state that grows with every compute."""

    def build(b: Builder, _: Any) -> None:
        state, one = b.cache("state", "f32", (4,)), b.activations("x", 4)
        total = b.g.add(state, b.g.abs(one))
        b.g.expand(b.g.cpy(total, state))
        b.output(b.g.neg(total), "y")

    return zoo.Entry("drifting", "for this test", build, {})


def test_states_are_put_back_before_each_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(zoo.GRAPHS, "drifting", drifting_entry())
    job = Job("drifting", runner={"streams": 1, "threads": 1})
    try:
        first = job.check(3)
        state = job._workload.store["state"].numpy()
        job.settle()
        second, third = (job.check(3), job.time(), job.check(3))[::2]
        assert first != second, "the state has moved on"
        assert second == third
        job._restore()
        np.testing.assert_array_equal(job._workload.store["state"].numpy(), state)
    finally:
        job.close()


def test_facts_and_timeline_of_a_real_graph() -> None:
    job = Job("towers-tiny")
    try:
        facts = Facts(**job.facts(threads=2, computes=3))
        line = job.timeline({"streams": 2, "threads": 2, "always": True}, 3)
    finally:
        job.close()
    assert (facts.units, facts.phases, facts.width) == (30, 6, 5)
    assert facts.store_bytes == facts.bytes_read == 5 * 3 * 32 * 32 * 4
    assert 0 < facts.critical_ms < facts.work_ms
    assert line["streams"] == 2
    assert len(line["spans"]) == 30
    assert {span["op"] for span in line["spans"]} == {"MUL_MAT", "RELU"}
    for stream in range(2):
        mine = [span for span in line["spans"] if span["stream"] == stream]
        ends = [(span["start_us"], span["end_us"]) for span in mine]
        assert ends == sorted(ends), "one after another"
        assert all(start < end for start, end in ends)


#
# Races
#


@pytest.fixture(autouse=True)
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring memory properly takes seconds."""
    monkeypatch.setattr(traffic, "memory_bytes", lambda: 4 << 20)


def bench(*arguments: object) -> int:
    return cli.main(["bench", *map(str, arguments)])


def test_a_real_race(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, html = tmp_path / "r.json", tmp_path / "r.html"
    compare = ["--compare", "serial1,streams", "--runs", 5, "--processes", 2]
    compare += ["--timeline", "towers-tiny"]
    assert bench("towers-tiny", *compare, "--json", file, "--html", html) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    assert cells(out, "towers-tiny", "serial1")[2] == "1.00x"
    assert cells(out, "towers-tiny", "streams")[-1] == "same"
    results = results_file.load_file(file)
    assert results.state == COMPLETE
    (graph,) = results.graphs
    assert (graph.dtype, graph.n_tokens) == ("f32", 1)
    measured = [(m.candidate, m.ways, len(m.times_ms)) for m in graph.measured]
    assert measured == [("serial1", ["serial 1/1"], 5), ("streams", ["list 2/2"], 5)]
    assert [len(p.times_ms) for p in graph.measured[0].processes] == [3, 2]
    assert [line.candidate for line in graph.timelines] == ["serial1", "streams"]
    assert "towers-tiny" in html.read_text(encoding="utf-8")


def test_settings_reach_the_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.json"
    settings = ("--dtype", "f16", "--tokens", 3, "--past", 4, "--threads", 1)
    compare = ("--compare", "serial", "--runs", 1, "--json", file)
    assert bench("llama-tiny", *compare, *settings) == 0
    capsys.readouterr()
    (graph,) = results_file.load_file(file).graphs
    assert (graph.dtype, graph.n_tokens, graph.n_past) == ("f16", 3, 4)


class FakeWorker:
    """Answers at once: times from a table, hashes that can be made to differ."""

    ms: ClassVar = {"serial": 4.0, "serial1": 2.0, "streams": 1.0, "levels": 1.0, "default": 1.0}
    broken: ClassVar[set[str]] = set()
    raises: ClassVar[dict[str, BaseException]] = {}
    asked: ClassVar[list[tuple[str, str]]] = []
    closed: ClassVar[list[str]] = []

    def __init__(
        self, _job: Any, _environment: Any = None, what: str = "", *, wait: bool = True
    ) -> None:
        self.name = what.rpartition(", ")[2]
        FakeWorker.asked.append((self.name, "start"))
        if wait:
            self.ready()
        self.checks = 0
        self.pid = os.getpid()

    def ready(self) -> None:
        FakeWorker.asked.append((self.name, "ready"))

    def ask(self, do: str, **_: Any) -> dict[str, Any]:
        FakeWorker.asked.append((self.name, do))
        if do == "check":
            self.checks += 1
            wrong = self.name in self.broken and self.checks == 2
            return {"hashes": {"y": "1", "cache": "3" if wrong else "2"}}
        if do == "time" and self.name in self.raises:
            raise self.raises[self.name]
        return {
            "settle": {"strategy": "list", "streams": 2, "threads": 2, "burst": 5}
            | {"planning_ms": 0.1, "buffer_bytes": 100},
            "time": {"ms": self.ms.get(self.name)},
            "facts": dataclasses.asdict(Facts(30, 30, 6, 5, 10**9, 99, 9, 1.0, 0.5)),
            "timeline": {"streams": 1, "total_us": 1.0, "spans": []},
        }[do]

    def __enter__(self) -> FakeWorker:  # noqa: PYI034  typing.Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        FakeWorker.closed.append(self.name)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    monkeypatch.setattr(measure, "Worker", FakeWorker)
    for name, empty in (("broken", set()), ("raises", {}), ("asked", []), ("closed", [])):
        monkeypatch.setattr(FakeWorker, name, empty)
    return FakeWorker


def test_candidates_take_turns(fake: type[FakeWorker], capsys: pytest.CaptureFixture[str]) -> None:
    names = ["serial", "serial1", "streams"]
    arguments = ("--compare", ",".join(names), "--runs", 40, "--processes", 1)
    assert bench("towers-tiny", *arguments) == 0
    turns = [name for name, do in fake.asked if do == "time"]
    rounds = [turns[i : i + 3] for i in range(0, len(turns), 3)]
    assert len(rounds) == 40 + measure.WARM_ROUNDS
    assert all(sorted(r) == names for r in rounds)
    assert len({tuple(r) for r in rounds}) == 6, "in every order"
    assert fake.closed == ["towers-tiny", "streams", "serial1", "serial"]
    assert cells(capsys.readouterr().out, "towers-tiny", "streams")[2] == "2.00x"


def test_all_candidates_build_at_once_and_open_one_after_another(fake: type[FakeWorker]) -> None:
    assert bench("towers-tiny", "--compare", "serial,streams", "--runs", 1) == 0
    of_candidates = [request for request in fake.asked if request[0] != "towers-tiny"]
    both = ("serial", "streams")
    expected = [(name, do) for do in ("start", "ready", "check", "settle") for name in both]
    assert of_candidates[: len(expected)] == expected


def test_a_job_opens_its_runner_when_it_is_asked_for() -> None:
    job = Job("towers-tiny", runner={"streams": 0})
    with pytest.raises(ggc.Error, match="streams"):
        job.check(1)
    job.close()
    job = Job("towers-tiny", runner={"streams": 1})
    assert job._runner is None
    job.check(1)
    assert job._open_runner() is job._runner is not None
    job.close()
    assert job._runner.closed


@pytest.mark.parametrize(("nbytes", "expected"), [(99, 10.0), (100, 20.0)])
def test_what_is_as_large_as_memorys_test_is_not_copied_again(
    nbytes: int,
    expected: float,
    fake: type[FakeWorker],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "r.json"
    rates = iter([10.0, 20.0])
    monkeypatch.setattr(device, "memory_bytes", lambda _: nbytes)
    monkeypatch.setattr(device, "copy_gb_per_s", lambda *_: next(rates))
    assert bench("towers-tiny", "--compare", "serial", "--runs", 1, "--json", file) == 0
    assert results_file.load_file(file).graphs[0].copy_gb_per_s == expected  # of 99 bytes


def test_processes_share_the_runs(
    fake: type[FakeWorker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.json"
    arguments = ("--compare", "serial,streams", "--runs", 8, "--processes", 3, "--json", file)
    assert bench("towers-tiny", *arguments) == 0
    (graph,) = results_file.load_file(file).graphs
    for m in graph.measured:
        assert [len(p.times_ms) for p in m.processes] == [3, 3, 2]
    assert fake.closed == ["towers-tiny", *["streams", "serial"] * 3]
    assert fake.asked.count(("streams", "check")) == 6


def test_there_are_never_more_processes_than_runs(
    fake: type[FakeWorker], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("towers-tiny", "--compare", "serial", "--runs", 2, "--processes", 9) == 0
    assert fake.closed == ["towers-tiny", "serial", "serial"]


def test_different_ways_of_processes_are_all_told() -> None:
    results = example()
    m = results.graphs[0].of("streams")
    m.processes.append(Process("serial", 1, 2, 0.7, 3 << 20, 10, [3.0, 3.0, 3.0]))
    row = cells(str(table.race(results)), "towers-tiny", "streams")
    assert row[5:8] == ["2.200", "0.9000", "3.000"]
    assert row[9:11] == ["6", "list 2/2, serial 1/2"]
    assert row[-3:] == ["0.600", "3.000", "same"]


def test_little_time_means_few_rounds(
    fake: type[FakeWorker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.json"
    bench("towers-tiny", "--compare", "serial", "--runs", 50, "--seconds", 0, "--json", file)
    (graph,) = results_file.load_file(file).graphs
    assert len(graph.measured[0].times_ms) == measure.LEAST_ROUNDS
    assert len(graph.measured[0].processes) == 3


def test_other_bits_are_found_even_after_the_race(
    fake: type[FakeWorker], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.broken.add("streams")
    assert bench("towers-tiny", "--compare", "serial,streams,levels", "--runs", 2) == 1
    out = capsys.readouterr().out
    assert cells(out, "towers-tiny", "streams")[-1] == "DIFFERENT"
    assert cells(out, "towers-tiny", "levels")[-1] == "same"
    assert "DIFFERENT BITS: towers-tiny, streams: cache differ from serial" in out


def test_the_reference_is_asked_even_where_it_does_not_run(
    fake: type[FakeWorker], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.broken.add("streams")
    assert bench("towers-tiny", "--compare", "serial1,streams", "--runs", 2) == 1
    assert fake.asked.count(("serial", "check")) == 4
    assert ("serial", "time") not in fake.asked
    assert "streams: cache differ from serial" in capsys.readouterr().out


def test_ggmls_own_bits_may_depend_on_threads(
    fake: type[FakeWorker], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.broken.add("serial1")
    assert bench("towers-tiny", "--compare", "serial,serial1", "--runs", 2) == 0
    out = capsys.readouterr().out
    assert cells(out, "towers-tiny", "serial1")[-1] == "other"
    assert "DIFFERENT" not in out


@pytest.mark.parametrize(("compare", "processes"), [("serial,streams", 2), ("serial1,streams", 3)])
def test_processes_that_do_not_fit_into_memory_are_not_started(
    compare: str,
    processes: int,
    fake: type[FakeWorker],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: processes * 10**9 - 1)
    assert bench("towers-tiny", "--compare", compare, "--runs", 1) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert f"towers-tiny: {processes} processes with 1.0 GB" in errors
    assert {name for name, _ in fake.asked} == {"towers-tiny"}
    monkeypatch.setattr(machine, "available_memory", lambda: processes * 10**9)
    assert bench("towers-tiny", "--compare", compare, "--runs", 1) == 0


def test_a_failure_keeps_what_was_measured(
    fake: type[FakeWorker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.json"
    compare = ("--compare", "serial,streams", "--runs", 2, "--json", file)

    class Failing(FakeWorker):
        def ask(self, do: str, **_: Any) -> dict[str, Any]:
            if do == "time" and len(fake.asked) > 30:
                raise ggc.Error("no more")
            return super().ask(do)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "Worker", Failing)
        assert bench("towers-tiny", "llama-tiny", "gemma3-tiny", *compare) == 2
    out, errors = capsys.readouterr()
    assert errors == "ggml-concurrent: no more\n"
    assert "FAILED" in out
    assert results_file.load_file(file).of("towers-tiny") is not None


def test_an_interrupt_before_the_first_time_leaves_nothing_behind(
    fake: type[FakeWorker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.raises["streams"] = KeyboardInterrupt()
    assert bench("towers-tiny", "--compare", "serial,streams", "--runs", 2) == 130
    assert "INTERRUPTED" in capsys.readouterr().out
    assert sorted(fake.closed) == ["serial", "streams", "towers-tiny"]


def test_a_timeline_is_refused_where_operations_are_not_timed(
    fake: type[FakeWorker], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    untold = Facts(30, 30, 6, 5, 10**9, 99, 9, None, None)

    class Untold(FakeWorker):
        def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
            answer = super().ask(do, **arguments)
            return dataclasses.asdict(untold) if do == "facts" else answer

    monkeypatch.setattr(measure, "Worker", Untold)
    assert bench("towers-tiny", "--compare", "serial", "--runs", 1) == 0
    capsys.readouterr()
    asked = ("--compare", "serial", "--runs", 1, "--timeline", "towers-tiny")
    assert bench("llama-tiny", *asked) == 2
    out, errors = capsys.readouterr()
    assert errors == (
        "ggml-concurrent: cpu does not tell when operations run: there is no timeline\n"
    )
    assert cells(out, "llama-tiny", "serial")


def test_repeating_a_run(
    fake: type[FakeWorker],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, html = tmp_path / "1.json", tmp_path / "2.json", tmp_path / "2.html"
    settings = ("--compare", "serial,streams", "--runs", 3, "--threads", 3, "--past", 9)
    assert bench("towers-tiny", "llama-tiny", *settings, "--json", first) == 0
    capsys.readouterr()
    monkeypatch.setitem(fake.ms, "streams", 2.0)
    assert bench("--repeat-from", first, "--json", second, "--html", html) == 0
    assert cells(capsys.readouterr().out, "llama-tiny", "streams")[2:4] == ["2.00x", "4.00x"]
    assert results_file.load_file(second).settings == results_file.load_file(first).settings
    assert "<td>4.00x</td>" in html.read_text(encoding="utf-8")


def test_a_file_of_a_graph_that_is_gone_cannot_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(results_file.dump(example()))
    document["results"]["settings"]["graphs"] = ["gone"]
    file = tmp_path / "r.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    assert bench("--repeat-from", file) == 2
    assert "'gone'" in capsys.readouterr().err


@pytest.mark.parametrize("tty", [True, False])
def test_progress_only_on_a_terminal(
    tty: bool,
    fake: type[FakeWorker],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = Terminal(tty)
    monkeypatch.setattr(sys, "stderr", stream)
    assert bench("towers-tiny", "--compare", "serial", "--runs", 2) == 0
    assert bool(stream.text) == tty
    if tty:
        shares = [int(n) for n in re.findall(r"(\d+) %", stream.text)]
        assert shares == sorted(shares)
        assert shares[0] == 0
        assert shares[-1] >= 50
        assert "\n" not in stream.text
        assert stream.text.endswith("\r")


#
# Ctrl-C
#


def marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # not ours, or gone
            continue
    return found


def interrupted(files: list[str], mark: str, seconds: float) -> tuple[int, str, str]:
    """A race that is interrupted so long after all its processes were there."""
    patch = "from ggml_concurrent.bench import traffic; traffic.memory_bytes = lambda: 4 << 20"
    program = f"{patch}; import sys; from ggml_concurrent.cli import main; sys.exit(main())"
    options = ["--compare", "serial1,streams", "--runs", "100000", "--processes", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", program, "bench", "towers-tiny", *options, *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BENCH_TEST_MARK": mark},
    ) as process:
        end = time.monotonic() + 60
        while len(marked(mark)) < 4 and time.monotonic() < end:  # all workers are there
            time.sleep(0.1)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(),
    reason="/proc/self/environ is missing: processes are found there",
)
@pytest.mark.timeout(400)
def test_interrupt_keeps_what_was_measured_and_leaves_no_process(tmp_path: Path) -> None:
    file, html, mark = tmp_path / "r.json", tmp_path / "r.html", f"mark-{uuid.uuid4()}"
    for seconds in (2.0, 10.0, 40.0):  # a busy machine needs longer for the first round
        code, out, errors = interrupted(["--json", str(file), "--html", str(html)], mark, seconds)
        assert (code, errors) == (130, "")
        assert "INTERRUPTED" in out
        results = results_file.load_file(file)
        assert results.state == INTERRUPTED
        assert marked(mark) == []
        if results.graphs:
            break
    assert results.graphs[0].of("streams").times_ms
    assert "INTERRUPTED" in html.read_text(encoding="utf-8")
