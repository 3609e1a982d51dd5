"""Chat templates in files: their text is what the recipe holds, and so what identifies a stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.options.recipe import Recipe, load_recipe
from pipeline.options.views import FetchOptions
from tests.options.configs import GOOD

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def recipe(folder: Path, value: str) -> Recipe:
    path = folder / "params.yaml"
    path.write_text(GOOD + f"chat_template_jinja: {value}\n")
    return load_recipe(path)


@pytest.mark.parametrize("name", ["./mine.jinja", "texts/mine.txt", "mine"])
def test_the_text_takes_the_place_of_the_name(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(TEMPLATE)
    found = recipe(tmp_path, name)
    assert found.files == (file,)
    assert found.view(FetchOptions).canonical()["chat_template_jinja"] == TEMPLATE
    file.write_text("other")
    assert recipe(tmp_path, name).view(FetchOptions).canonical()["chat_template_jinja"] == "other"


def test_text_that_names_no_file_is_a_template(tmp_path: Path) -> None:
    found = recipe(tmp_path, f"'{TEMPLATE}'")
    assert (found.files, found.options.chat_template_jinja) == ((), TEMPLATE)


def test_a_template_of_one_dataset(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    text = GOOD.replace("    type: chat_template\n", "    type: chat_template\n    chat_template_jinja: mine.jinja\n")
    (tmp_path / "params.yaml").write_text(text)
    found = load_recipe(tmp_path / "params.yaml")
    assert found.options.datasets[0].chat_template_jinja == TEMPLATE
    assert found.files == (tmp_path / "mine.jinja",)


def test_what_is_not_there_and_what_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(RegrowError, match=r"chat_template_jinja.*there is no such file"):
        recipe(tmp_path, "gone.jinja")
    (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe{{")
    with pytest.raises(RegrowError, match=r"bytes\.jinja cannot be read as text"):
        recipe(tmp_path, "bytes.jinja")


def test_a_fault_in_the_file_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    with pytest.raises(RegrowError, match=r"not a Jinja template: line 2"):
        recipe(tmp_path, "mine.jinja")
