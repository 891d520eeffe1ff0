"""Results as one HTML page that needs nothing else: no script, no network, fit for paper."""

from __future__ import annotations

from html import escape

from . import chart, table
from .results import GraphResult, Results

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --fore: #1b1f24; --soft: #5b6470; --rule: #d5d9df;
  --shade: #f4f6f8; --red: #c62828; --grey: #7d8794; --pale: #a9b1bc; --blue: #2f6fd0;
  --teal: #17877d; --orange: #c2620c; --violet: #7b52b9; --other: #b8bec7; }
@media (prefers-color-scheme: dark) { :root { --back: #15181c; --fore: #e6e9ed; --soft: #9aa4b0;
  --rule: #363c44; --shade: #1e2227; --red: #ff7b72; --grey: #8791a0; --pale: #5d6773;
  --blue: #5b96ee; --teal: #35b0a4; --orange: #e58a3c; --violet: #a583e0; --other: #5a626c; } }
body { background: var(--back); color: var(--fore); max-width: 1160px; margin: 24px auto;
  padding: 0 20px; font: 14px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6em; margin: 0 0 8px; } h2 { font-size: 1.2em; margin: 28px 0 8px; }
h3 { font-size: 1em; margin: 0; } p { margin: 4px 0; } .soft { color: var(--soft); }
.state, .wrong { color: var(--red); fill: var(--red); font-weight: bold; }
.bars { display: grid; grid-template-columns: 1fr 1fr; gap: 18px 24px; }
.bars figure, .lines figure { margin: 0; break-inside: avoid; }
figcaption { margin: 0 0 4px; } figcaption span { color: var(--soft); }
.lines figure { margin: 0 0 14px; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--fore); }
svg text.tick { fill: var(--soft); font-size: 11px; }
svg text.value { paint-order: stroke; stroke: var(--back); stroke-width: 4px; }
svg text.wrong { fill: var(--red); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.8em; font-variant-numeric: tabular-nums;
  width: 100%; }
th, td { padding: 3px 6px; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid var(--rule); font-weight: 600; vertical-align: bottom;
  white-space: normal; }
td { border-bottom: 1px solid var(--rule); } tr.first td { border-top: 2px solid var(--rule); }
th.left, td.left { text-align: left; } td.ratio { font-weight: bold; }
ul { margin: 4px 0; padding-left: 20px; color: var(--soft); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 0.9em; }
.legend svg { width: 12px; height: 12px; display: inline-block; vertical-align: -1px; }
.baseline { stroke: var(--soft); stroke-dasharray: 4 3; } .grid { stroke: var(--rule); }
.whisker { stroke: var(--fore); stroke-width: 1.4; }
.bar { fill: var(--violet); } .c-serial { fill: var(--grey); } .c-serial1 { fill: var(--pale); }
.c-streams { fill: var(--blue); } .c-levels { fill: var(--teal); }
.c-default { fill: var(--orange); } .c-graph-opt { fill: var(--pale); }
.c-direct { fill: var(--other); }
.unit { stroke: var(--back); stroke-width: 0.5; } .k-other { fill: var(--other); }
@media print {
  :root { color-scheme: light; --back: #fff; --fore: #000; --soft: #444; --rule: #bbb;
    --shade: #f2f2f2; --red: #b00000; --grey: #7d8794; --pale: #a9b1bc; --blue: #2f6fd0;
    --teal: #17877d; --orange: #c2620c; --violet: #7b52b9; --other: #b8bec7; }
  @page { size: A4 landscape; margin: 12mm; }
  body { margin: 0; padding: 0; max-width: none; font-size: 11px; }
  h2, .soft, .legend { break-after: avoid; } tr, li { break-inside: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
_UNIT_COLOURS = """
#3b78d8 #d9772b #2a9d6f #9b5fc0 #d1495b #1aa0b4 #b59a17 #7a6a58 #e08bb5
""".split()


def _style() -> str:
    colours = " ".join(f".k-{i} {{ fill: {c}; }}" for i, c in enumerate(_UNIT_COLOURS))
    return f"<style>{_STYLE}{colours}</style>"


def pictures(results: Results) -> dict[str, str]:
    """The page's pictures as SVG documents of their own, by a name for each."""
    found = {}
    for graph in results.graphs:
        found[f"{graph.name}-times"] = chart.bars(graph)
        if graph.timelines:
            colours = chart.kinds(graph.timelines)
            end = max(s.end_us for line in graph.timelines for s in line.spans)
        for line in graph.timelines:
            found[f"{graph.name}-{line.candidate}"] = chart.timeline(line, colours, end)
    background = '<rect width="100%" height="100%" style="fill: var(--back)"/>'
    return {
        name: svg.replace("\n", f"\n{_style()}\n{background}\n", 1) + "\n"
        for name, svg in found.items()
    }


def page(results: Results, old: Results | None = None) -> str:
    """The page; with the ratios of an older run beside, if given."""
    body = [_head(results)]
    if results.graphs:
        body += [_bars(results), *_timelines(results)]
        body += [_table(table.race(results, old)), _table(table.graphs(results))]
        items = "".join(f"<li>{escape(note)}</li>" for note in table.notes(results))
        body.append(f"<h2>How to read it</h2>\n<ul>{items}</ul>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width"/>\n'
        "<title>ggml-concurrent bench</title>\n"
        f"{_style()}\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _head(results: Results) -> str:
    lines = table.heading(results)
    css = ["soft"] * len(lines)
    if results.state != table.COMPLETE:
        css[-1] = "state"
    parts = [f'<p class="{c}">{escape(line)}</p>' for c, line in zip(css, lines, strict=True)]
    wrong = [f'<p class="wrong">DIFFERENT BITS: {escape(d)}</p>' for d in results.differences]
    wrong += [f'<p class="wrong">DISTURBED: {escape(d)}</p>' for d in results.disturbances]
    return "\n".join(["<h1>ggml-concurrent bench</h1>", *wrong, *parts])


def _bars(results: Results) -> str:
    figures = (
        f"<figure><figcaption><h3>{escape(g.name)}</h3><span>{escape(_about(g))}</span>"
        f"</figcaption>\n{chart.bars(g)}</figure>"
        for g in results.graphs
    )
    caption = (
        '<p class="soft">Median time, shorter is better; whiskers from the first to the third '
        "quartile; dashed: the faster serial candidate, by which ratios go.</p>"
    )
    return f'<h2>Times</h2>\n{caption}\n<div class="bars">\n' + "\n".join(figures) + "\n</div>"


def _about(graph: GraphResult) -> str:
    f = graph.facts
    tokens = f"{graph.n_tokens} token{'s' * (graph.n_tokens != 1)}"
    return f"{graph.about}; {graph.dtype}, {tokens}; {f.units} units, at most {f.width} at once"


def _timelines(results: Results) -> list[str]:
    parts = []
    for graph in results.graphs:
        if not graph.timelines:
            continue
        colours = chart.kinds(graph.timelines)
        end = max(s.end_us for line in graph.timelines for s in line.spans)
        figures = (
            f"<figure><figcaption><h3>{escape(line.candidate)}</h3></figcaption>\n"
            f"{chart.timeline(line, colours, end)}</figure>"
            for line in graph.timelines
        )
        parts.append(
            f"<h2>When the operations of {escape(graph.name)} ran</h2>\n"
            '<p class="soft">One compute, the median of a few; each unit was issued by itself to '
            "be timed, so that everything takes longer than in the race.</p>\n"
            f'{chart.legend(colours)}\n<div class="lines">\n' + "\n".join(figures) + "\n</div>"
        )
    return parts


def _table(data: table.Table) -> str:
    rows, before = [], ""
    for row in data.rows:
        rows.append(_row("td", row, data, first=row[0] != before))
        before = row[0]
    head, body = _row("th", data.head, data), "\n".join(rows)
    return (
        f'<h2>{escape(data.title)}</h2>\n<div class="wide"><table>\n<thead>\n{head}\n</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _row(kind: str, cells: list[str], data: table.Table, *, first: bool = False) -> str:
    texts = []
    for i, cell in enumerate(cells):
        css = "left" if i < data.left else "ratio" if data.head[i] == "ratio" else ""
        if cell == table.DIFFERENT:
            css = "wrong"
        attribute = f' class="{css}"' if css else ""
        texts.append(f"<{kind}{attribute}>{escape(cell)}</{kind}>")
    start = '<tr class="first">' if first else "<tr>"
    return f"{start}{''.join(texts)}</tr>"
