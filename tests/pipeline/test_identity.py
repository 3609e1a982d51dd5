"""A stage's code identity: what it runs and which libraries that imports, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RegrowError
from pipeline.identity import check_installed, code_identity, read_lock

LOCK = {"numpy": "2.0", "torch": "2.13.0", "transformers": "5.0", "tokenizers": "0.23", "safetensors": "0.8"}
FILES = {
    "stages/__init__.py": "",
    "stages/one/__init__.py": "def run():\n    from stages.one.work import go\n    return go()\n",
    "stages/one/work.py": "from pipeline import shared, texts\nfrom pipeline.options import wide\nimport json\n\ndef go():\n"
    "    import numpy\n    return shared.f(1)\n",
    "stages/one/page.jinja": "<p>",
    "stages/two/__init__.py": "import transformers\n",
    "pipeline/__init__.py": "",
    "pipeline/shared.py": 'def f(x):\n    """Say."""\n    return x + 1  # one more\n',
    "pipeline/options/__init__.py": "",
    "pipeline/options/wide.py": "A = 1\n",
    "pipeline/unused.py": "import torch\n",
    "pipeline/texts/__init__.py": "def read(): ...\n",
    "pipeline/texts/parts/one.jinja": "{{ a }}",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def identity(root: Path, stage: str = "one") -> dict[str, Any]:
    return code_identity(root, [f"stages.{stage}"], LOCK)


def test_versions_of_what_the_closure_imports(root: Path) -> None:
    assert identity(root)["packages"] == {"numpy": "2.0"}
    assert identity(root, "two")["packages"] == {"transformers": "5.0", "tokenizers": "0.23", "safetensors": "0.8"}


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("stages/one/work.py", "f(1)", "f(2)", True),
        ("pipeline/shared.py", "x + 1", "x + 2", True),
        ("stages/one/page.jinja", "<p>", "<b>", True),
        ("pipeline/texts/parts/one.jinja", "a", "b", True),
        ("pipeline/shared.py", "# one more", "# another word", False),
        ("pipeline/shared.py", "Say.", "Say it.", False),
        ("pipeline/shared.py", "return x + 1", "return (x  +  1)", False),
        ("pipeline/unused.py", "torch", "json", False),
        ("pipeline/options/wide.py", "1", "2", False),
        ("stages/two/__init__.py", "transformers", "numpy", False),
    ],
)
def test_code_changes_identity_when_it_can_change_the_output(root: Path, file: str, old: str, new: str, changes: bool) -> None:
    before = identity(root)["code"]
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    assert (identity(root)["code"] != before) is changes


def test_tokens_depend_on_what_makes_them() -> None:
    root = Path(__file__).parents[2]
    lock = read_lock(root / "requirements.lock")
    made_by = code_identity(root, ["stages.tokenize"], lock)
    assert {"fastokens", "tokenizers", "jinja2", "numpy", "pyarrow"} <= made_by["packages"].keys()
    assert {"pipeline/options/dataset_types.py", "pipeline/chat_templates/chatml.jinja"} <= made_by["code"].keys()
    assert code_identity(root, ["stages.tokenize"], lock | {"fastokens": "9"}) != made_by
    assert code_identity(root, ["stages.dedupe"], lock | {"fastokens": "9"}) == code_identity(root, ["stages.dedupe"], lock)


def test_a_library_outside_the_lock_is_an_error(root: Path) -> None:
    (root / "pipeline/shared.py").write_text("import scipy\n")
    with pytest.raises(RegrowError, match="scipy"):
        identity(root)


def test_code_that_cannot_be_parsed_and_a_lock_that_is_not_there(root: Path) -> None:
    (root / "pipeline/shared.py").write_text("def f(:\n")
    with pytest.raises(RegrowError, match=r"shared\.py is not valid Python"):
        identity(root)
    with pytest.raises(RegrowError, match=r"requirements\.lock cannot be read"):
        read_lock(root / "requirements.lock")


def test_what_an_editor_leaves_beside_the_code_is_no_code(root: Path) -> None:
    before = identity(root)
    (root / "stages/one/.work.py.swp").write_text("x")
    (root / "stages/one/work.py~").write_text("x")
    assert identity(root) == before


def test_reads_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "requirements.lock"
    path.write_text("# note\nruamel.yaml==0.18.6\nFoo_Bar[x]==1.0 ; python_version > '3'\n")
    assert read_lock(path) == {"ruamel-yaml": "0.18.6", "foo-bar": "1.0"}


def test_refuses_to_compute_with_other_versions_than_locked() -> None:
    with pytest.raises(RegrowError, match=r"numpy is .* here; requirements.lock says 0.1"):
        check_installed({"numpy": "0.1"})
    check_installed({"an-extra-that-is-absent": "1"})
