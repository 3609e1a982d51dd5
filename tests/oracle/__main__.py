"""``python -m tests.oracle CASES``: every case of a folder in one process, a line each, and last how many are equal."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from tests.oracle.case import read_expected
from tests.oracle.compare import verdict
from tests.oracle.differences import Context
from tests.oracle.ours import make_rows


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
    workspace = folder / case.name
    ours = make_rows(case, case.parent.parent / "tokenizers", workspace, folder / "cache")
    tokenizer = workspace / "data" / "tokenizer"
    if not tokenizer.exists():
        return verdict(read_expected(case), ours, Context(None, frozenset()), lambda ids: "")
    read = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    config = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = [token.content for token in read.get_added_tokens_decoder().values()]
    bos = read.token_to_id(str(config.get("bos_token")))
    context = Context(bos, frozenset(read.token_to_id(token) for token in special))
    return verdict(read_expected(case), ours, context, lambda ids: read.decode(list(ids), skip_special_tokens=False))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
