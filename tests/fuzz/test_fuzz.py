"""A share of what `make fuzz` tries: every listed trap, and some hundred random ones of each kind."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.__main__ import SHARES, inputs_of
from tests.fuzz.rows import untested_types

COUNTS = {"rows": 6000, "files": 260, "templates": 300, "configs": 160, "tokenizers": 24, "models": 60}


def test_every_dataset_type_gets_damaged_rows() -> None:
    assert untested_types() == set()


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARES)
def test_malformed_input_is_used_counted_or_refused(kind: str, tmp_path: Path) -> None:
    tried = list(inputs_of(kind)(Random(kind), tmp_path, COUNTS[kind]))
    wrong = [f"{one.kind}: {one.ending}: {one.what}\n{one.said}" for one in tried if one.ending not in ("done", "refused")]
    assert not wrong, "\n\n".join(wrong[:5])
    assert any(one.ending == "done" for one in tried) and any(one.ending == "refused" or one.rows.counted for one in tried)
