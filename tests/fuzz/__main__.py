"""``python -m tests.fuzz --cases 20000 --seed 7``: malformed input of every kind, and how each ended. Exits with 1 if one ended wrongly."""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from random import Random

from tests.fuzz.judge import Tried, table

SHARES = {"rows": 0.68, "files": 0.15, "templates": 0.06, "configs": 0.05, "tokenizers": 0.015, "models": 0.045}
"""Of all inputs, by what a try costs: thousands of rows go into a second, three tokenizers."""

Inputs = Callable[[Random, Path, int], Iterator[Tried]]


def main() -> None:
    """Try them, print the table and whatever ended wrongly."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="inputs in all; default 20000")
    parser.add_argument("--seed", type=int, default=7, help="the same seed makes the same inputs")
    parser.add_argument("--kinds", nargs="+", choices=SHARES, default=list(SHARES), help="some kinds only")
    asked = parser.parse_args()
    started, tried, nowhere = time.process_time(), [], io.StringIO()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for kind in asked.kinds:
        count = max(1, round(asked.cases * SHARES[kind] / sum(SHARES[kind] for kind in asked.kinds)))
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, redirect_stderr(nowhere):
            some = list(inputs_of(kind)(Random(f"{asked.seed} {kind}"), Path(folder), count))
        tried += some
        print(f"{kind}: {sum(one.inputs for one in some)} inputs, {time.process_time() - started:.0f} CPU s so far", file=sys.stderr)
    print(table(tried), flush=True)
    wrong = [one for one in tried if one.ending not in ("done", "refused")]
    for one in wrong[:20]:
        print(f"\n{one.kind}: {one.ending}: {one.what}\n{one.said}")
    sys.exit(1 if wrong else 0)


def inputs_of(kind: str) -> Inputs:
    """What makes and tries inputs of a kind."""
    from tests.fuzz import configs, files, models, rows, templates, tokenizers

    modules = {"rows": rows, "files": files, "templates": templates, "configs": configs, "tokenizers": tokenizers, "models": models}
    found: Inputs = modules[kind].inputs
    return found


if __name__ == "__main__":
    main()
