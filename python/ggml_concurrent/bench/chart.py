"""Pictures of results as SVG: bars of a graph's candidates, and the timeline of the streams."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from math import ceil, floor, log10

from .results import GraphResult, Measured, Timeline
from .table import DIFFERENT, bits, milliseconds, times

#: Operation kinds that get a colour of their own on a timeline; the rest share one.
KINDS = 9

# Whiskers that reach far beyond the longest bar are cut at this multiple of it.
_WHISKER = 1.5

_BARS_WIDTH, _ROW, _LEFT, _ROOM = 560, 28, 84, 306
_LINE_WIDTH, _LANE, _TOP = 1120, 30, 22
_OTHER = "other"


def _svg(width: float, height: float, body: Iterable[str], label: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
    return f'{head} role="img" aria-label="{escape(label)}">\n' + "\n".join(body) + "\n</svg>"


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    kind = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


#
# Bars
#


def bars(graph: GraphResult) -> str:
    """Medians as bars, quartiles as whiskers; a dashed line where the baseline is."""
    longest = max(m.summary.median for m in graph.measured)
    whisker = max(m.summary.quartiles[1] for m in graph.measured)
    scale = _ROOM / min(whisker, _WHISKER * longest)
    height = _ROW * len(graph.measured) + 6
    tops = [3 + i * _ROW for i in range(len(graph.measured))]
    rows = list(zip(graph.measured, tops, strict=True))
    body = [part for m, top in rows for part in _bar(m, top, scale)]
    if graph.baseline is not None:
        x = _LEFT + graph.baseline.summary.median * scale
        body.append(_line(x, 0, x, height, "baseline"))
    body += [_value(graph, m, top, scale) for m, top in rows]  # readable above the line
    return _svg(_BARS_WIDTH, height, body, f"{graph.name}: times of the candidates")


def _bar(m: Measured, top: float, scale: float) -> list[str]:
    s, middle = m.summary, top + _ROW / 2 - 3
    low, high = (_LEFT + min(q * scale, _ROOM) for q in s.quartiles)
    cut = s.quartiles[1] * scale > _ROOM + 0.1
    title = (
        f"{m.candidate}: median {milliseconds(s.median)} ms, quartiles "
        f"{milliseconds(s.quartiles[0])} to {milliseconds(s.quartiles[1])}, all "
        f"{milliseconds(s.low)} to {milliseconds(s.high)}, {s.runs} runs"
    )
    width, height = s.median * scale, _ROW - 8
    box = (
        f'<rect x="{_LEFT}" y="{top + 1:.1f}" width="{width:.1f}" height="{height}" '
        f'class="bar c-{m.candidate}"><title>{escape(title)}</title></rect>'
    )
    return [
        _text(_LEFT - 8, middle + 4, m.candidate, anchor="end"),
        box,
        _line(low, middle, high, middle, "whisker"),
        _line(low, middle - 4, low, middle + 4, "whisker"),
        *([] if cut else [_line(high, middle - 4, high, middle + 4, "whisker")]),
    ]


def _value(graph: GraphResult, m: Measured, top: float, scale: float) -> str:
    """Ratio and median, right of the bar and its whisker."""
    s = m.summary
    end = _LEFT + min(max(s.median, s.quartiles[1]) * scale, _ROOM)
    differs = bits(m) == DIFFERENT
    wrong = ", DIFFERENT BITS" if differs else ""
    text = f"{times(graph.ratio(m))}, {milliseconds(s.median)} ms{wrong}"
    return _text(end + 8, top + _ROW / 2 + 1, text, "value wrong" if differs else "value")


#
# Timelines
#


def kinds(timelines: Iterable[Timeline]) -> dict[str, int]:
    """Operation -> number of its colour, those that take longest first; others have none."""
    spent: dict[str, float] = {}
    for timeline in timelines:
        for span in timeline.spans:
            spent[span.op] = spent.get(span.op, 0.0) + span.end_us - span.start_us
    longest = sorted(spent, key=lambda op: -spent[op])[:KINDS]
    return {op: i for i, op in enumerate(longest)}


def timeline(line: Timeline, colours: dict[str, int], end_us: float) -> str:
    """A lane for each stream, a box for each unit; the axis ends at end_us."""
    left = 76
    scale = (_LINE_WIDTH - left - 12) / end_us
    bottom = _TOP + _LANE * line.streams
    body = _axis(left, bottom, scale, end_us)
    for stream in range(line.streams):
        body.append(_text(left - 8, _TOP + _LANE * stream + 19, f"stream {stream}", anchor="end"))
    for span in line.spans:
        x, y = left + span.start_us * scale, _TOP + _LANE * span.stream + 3
        width = max((span.end_us - span.start_us) * scale, 0.4)
        title = f"{span.label}: {span.start_us:.1f} to {span.end_us:.1f} µs"
        colour = colours.get(span.op, _OTHER)
        body.append(
            f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{_LANE - 6}" '
            f'class="unit k-{colour}"><title>{escape(title)}</title></rect>'
        )
    label = f"timeline of {line.candidate}"
    return _svg(_LINE_WIDTH, bottom + 4, body, label)


def _axis(left: float, bottom: float, scale: float, end_us: float) -> list[str]:
    """Ticks at round times."""
    body, step = [], round_step(end_us, 8)
    for i in range(int(end_us / step) + 1):
        x = left + i * step * scale
        body.append(_line(x, _TOP - 4, x, bottom, "grid"))
        body.append(_text(x, _TOP - 8, _time(i * step, step), "tick", "middle"))
    return body


def round_step(end: float, most: int) -> float:
    """The smallest of ... 1, 2, 5, 10, 20 ... of which at most `most` fit into `end`."""
    raw = end / most
    power = 10.0 ** floor(log10(raw))
    return next(power * f for f in (1, 2, 5, 10) if power * f >= raw * (1 - 1e-9))


def _time(us: float, step: float) -> str:
    if step < 1000:
        return f"{us:g} µs"
    return f"{us / 1000:.{max(0, ceil(3 - log10(step)))}f} ms"


def legend(colours: dict[str, int]) -> str:
    """A swatch and a name for each kind of operation."""
    items = [(str(number), op) for op, number in colours.items()]
    items += [(_OTHER, _OTHER)] * (len(items) == KINDS)
    return (
        '<p class="legend">'
        + " ".join(
            f'<span><svg viewBox="0 0 12 12"><rect width="12" height="12" class="k-{css}"/></svg> '
            f"{escape(name)}</span>"
            for css, name in items
        )
        + "</p>"
    )
