"""The recipe of recipes/small, by which `make reproduce` proves itself: its files, and the digests of what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

from recipes.small import digests, make


def test_the_data_stages_make_what_is_committed(tmp_path: Path) -> None:
    """Whoever changes data on purpose runs the command below and says so in the commit."""
    committed = json.loads(digests.PATH.read_text(encoding="utf-8"))
    found = digests.data_digests(tmp_path)
    assert committed.keys() == found.keys()
    changed = [name for name in found if found[name] != committed[name]]
    assert not changed, (
        f"The code makes other data of recipes/small than it did: data/{changed[0]} is the first that differs, "
        f"{committed[changed[0]]} before, {found[changed[0]]} now. If that is wanted, run "
        "`python -m recipes.small.digests` and commit recipes/small/digests.json; "
        "every project's data stages will run again."
    )


def test_the_rows_are_those_that_the_script_makes(tmp_path: Path) -> None:
    make.write_rows(tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_bytes() == (make.FOLDER / "rows.jsonl").read_bytes()


def test_the_model_and_the_tokenizer_are_those_that_the_script_makes(tmp_path: Path) -> None:
    """Weights by their values: another torch may draw the same numbers and write another header."""
    from safetensors.numpy import load_file

    make.write_model(tmp_path)
    ours, made = load_file(make.FOLDER / "model" / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert ours.keys() == made.keys() and all((ours[name] == made[name]).all() for name in ours)
    make.write_tokenizer(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == json.loads((make.FOLDER / "model" / "tokenizer.json").read_text())


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in make.FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc") < 200_000
