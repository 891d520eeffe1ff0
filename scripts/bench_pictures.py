#!/usr/bin/env python3
"""Write the pictures of a bench's results as SVG files, for documentation.

ggml-concurrent bench GRAPH... --json results.json --timeline GRAPH
python scripts/bench_pictures.py results.json docs/pictures [NAME...]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ggml_concurrent import Error
from ggml_concurrent.bench.page import pictures
from ggml_concurrent.bench.results_file import load_file


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="JSON of ggml-concurrent bench")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="pictures (default: all)")
    options = parser.parse_args()
    try:
        found = pictures(load_file(options.results))
    except (Error, OSError) as error:
        sys.exit(str(error))
    unknown = set(options.names) - set(found)
    if unknown:
        sys.exit(f"no picture {', '.join(sorted(unknown))}; there are: {', '.join(found)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names or found:
        path = options.folder / f"{name}.svg"
        path.write_text(found[name], encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
