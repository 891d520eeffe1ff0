"""`python -m ggml_concurrent` is the `ggml-concurrent` command."""

from .cli import main

raise SystemExit(main())
