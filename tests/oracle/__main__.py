"""``python -m tests.oracle CASES``: every case of a folder in one process, a line each, and last how many are equal."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from tests.oracle.case import Made, read_config, read_expected
from tests.oracle.compare import verdict
from tests.oracle.context import Context
from tests.oracle.ours import Change, make_rows, raw_rows


def main(arguments: Sequence[str]) -> int:
    """Run the cases of the folder given, or those of it named after."""
    cases = Path(arguments[0])
    chosen = [case for case in sorted(cases.iterdir()) if case.is_dir() and (not arguments[1:] or case.name in arguments[1:])]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen:
            try:
                said = judge(case, Path(folder))
            except Exception as crash:  # one broken case must not hide the others
                said = f"different: {type(crash).__name__}: {crash}"
            counts[said.partition(":")[0]] += 1
            print(f"{case.name}: {said}", flush=True)
    print(f"{counts['equal']} equal, {counts['documented']} documented, {counts['different']} different")
    return 1 if counts["different"] else 0


def judge(case: Path, folder: Path) -> str:
    """The verdict on one case, made in ``folder``."""
    attempts = itertools.count()

    def make(change: Change) -> tuple[Made, Context]:
        workspace = folder / f"{case.name}-{next(attempts)}"
        return make_rows(case, tokenizers_of(case), workspace, folder / "cache", change), context_of(case, workspace)

    ours, context = make(Change())
    return verdict(read_expected(case), ours, context, make)


def tokenizers_of(case: Path) -> Path:
    """Beside the folder of the cases."""
    return case.parent.parent / "tokenizers"


def context_of(case: Path, workspace: Path) -> Context:
    """What is known of a case; without its tokenizer where we stopped before."""
    config, rows = read_config(case), raw_rows(workspace / "data")
    tokenizer = workspace / "data" / "tokenizer"
    if not tokenizer.exists():
        tokenizer = tokenizers_of(case) / str(config.get("base_model")).removeprefix("tokenizers/")
    read = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    names = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    bos, eos = (read.token_to_id(_text(names.get(name))) for name in ("bos_token", "eos_token"))
    special = frozenset(read.get_added_tokens_decoder())
    return Context(config, rows, lambda ids: read.decode(list(ids), skip_special_tokens=False), special, bos, eos)


def _text(token: object) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
