"""DeepSpeed's settings in a JSON file: what it holds is what the recipe holds, and so what identifies the training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.options.recipe import Recipe, load_recipe
from pipeline.options.views import PackOptions, TrainOptions
from tests.options.configs import GOOD

ZERO_2 = {"zero_optimization": {"stage": 2}}


def recipe(folder: Path, text: str) -> Recipe:
    (folder / "zero.json").write_text(text)
    (folder / "params.yaml").write_text(GOOD + "deepspeed: zero.json\n")
    return load_recipe(folder / "params.yaml")


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    found = recipe(tmp_path, json.dumps(ZERO_2))
    assert found.files == (tmp_path / "zero.json",)
    assert found.view(TrainOptions).canonical()["deepspeed"] == ZERO_2
    assert recipe(tmp_path, json.dumps(ZERO_2, indent=4)).view(TrainOptions).canonical() == found.view(TrainOptions).canonical()
    other = recipe(tmp_path, '{"zero_optimization": {"stage": 3}}')
    assert other.view(TrainOptions).canonical() != found.view(TrainOptions).canonical()
    assert other.view(PackOptions).canonical() == found.view(PackOptions).canonical()


@pytest.mark.parametrize(("text", "told"), [
    ("{", "cannot be read as JSON"),
    ("[1]", "holds list and no object"),
    ('{"gradient_clipping": NaN}', "NaN is no number"),
    ("[" * 100_000, "cannot be read as JSON"),
    ('{"zero_optimization": {"stage": 2}, "optimizer": {"type": "AdamW"}}', r"params.yaml:6: deepspeed.optimizer: .*not passed on"),
    ('{"zero_optimization": {"stage": 2}, "gradient_clipping": 0.5}', r"deepspeed.gradient_clipping: 0.5 .*max_grad_norm makes it 1"),
])  # fmt: skip
def test_what_a_file_cannot_say(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(RegrowError, match=told):
        recipe(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(GOOD + "deepspeed: no/such.json\n")
    with pytest.raises(RegrowError, match=r"params.yaml:6: deepspeed: .*there is no such file"):
        load_recipe(tmp_path / "params.yaml")
