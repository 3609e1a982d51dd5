"""Digests of modules are remembered by content: remembered or not, they are the same, and what is damaged is not believed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pipeline import module_code
from pipeline.identity import code_identity, read_lock
from pipeline.module_code import CodeMemory

ROOT = Path(__file__).parents[2]


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "rows.py"
    path.parent.mkdir()
    path.write_text("import json\n\n\ndef convert(row):\n    return json.loads(row)\n", encoding="utf-8")
    return path


def read(memory: CodeMemory, path: Path) -> module_code.Code:
    return memory.read(path.read_bytes(), "mine.rows", path)


def test_a_stage_has_the_same_identity_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, file = read_lock(ROOT / "requirements.lock"), tmp_path / "modules.json"
    parsed = code_identity(ROOT, ["stages.pack"], lock)
    first = CodeMemory(file)
    assert code_identity(ROOT, ["stages.pack"], lock, first) == parsed
    first.save()
    monkeypatch.setattr(ast, "parse", lambda *_, **__: pytest.fail("parsed again"))
    assert code_identity(ROOT, ["stages.pack"], lock, CodeMemory(file)) == parsed and len(parsed["code"]) > 5


def test_another_text_is_another_entry(module: Path, tmp_path: Path) -> None:
    memory = CodeMemory(tmp_path / "modules.json")
    digest, imports = read(memory, module)
    assert imports == ("json",)
    module.write_text(module.read_text() + "# reworded\n")
    assert read(memory, module) == (digest, imports)
    module.write_text(module.read_text().replace("loads", "load"))
    assert read(memory, module)[0] != digest


@pytest.mark.parametrize("damage", ["digest", "cut", "other maker"])
def test_a_damaged_memory_counts_for_nothing(module: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "modules.json"
    memory = CodeMemory(file)
    found = read(memory, module)
    memory.save()
    text = file.read_text()
    assert found[0] in text
    if damage == "other maker":
        monkeypatch.setattr(module_code, "_maker", lambda: "another Python")
        parsed: list[bytes] = []
        parse = module_code.parse_module
        monkeypatch.setattr(module_code, "parse_module", lambda source, *rest: parsed.append(source) or parse(source, *rest))
        assert read(CodeMemory(file), module) == found and len(parsed) == 1
        return
    file.write_text(text.replace(found[0], "0" * 16) if damage == "digest" else text[:-9])
    assert read(CodeMemory(file), module) == found


def test_only_what_was_used_last_is_kept_and_nothing_is_written_for_nothing(module: Path, tmp_path: Path) -> None:
    file = tmp_path / "modules.json"
    for ending in ("# one\n", "# other\n"):
        module.write_text(module.read_text() + ending)
        memory = CodeMemory(file)
        read(memory, module)
        memory.save()
    assert file.read_text().count('"json"') == 1
    before = file.stat().st_mtime_ns
    again = CodeMemory(file)
    read(again, module)
    again.save()
    assert file.stat().st_mtime_ns == before and [path.name for path in tmp_path.iterdir() if path.is_file()] == ["modules.json"]
