"""config.json of data/base: from elsewhere, as another class, with other attributes; and random weights for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from tests import tiny
from tests.fetch.made import fetch, link, write


@pytest.fixture
def project(tmp_path: Path, model_folder: Path) -> Path:
    folder = tmp_path / "project"
    link(folder, "base", model_folder)
    link(folder, "train-00", write(tmp_path / "rows.jsonl"))
    return folder


def config_of(project: Path, **options: Any) -> tuple[dict[str, Any], Any]:
    """config.json as fetch wrote it, and as transformers reads it."""
    from transformers import AutoConfig

    base = fetch(project, **options)[0]["base"].path
    return json.loads((base / "config.json").read_text()), AutoConfig.from_pretrained(base)


def test_overrides_are_what_later_stages_read(project: Path, model_folder: Path) -> None:
    given = {"attention_dropout": 0.25, "max_position_embeddings": 2048, "use_cache": False}
    written, read = config_of(project, overrides_of_model_config=given)
    original = json.loads((model_folder / "config.json").read_text())
    assert written == original | given
    assert (read.attention_dropout, read.max_position_embeddings, read.use_cache) == (0.25, 2048, False)
    tokenizer = json.loads((project / "data" / "tokenizer" / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 2048
    assert digest_file(project / "data" / "base" / "model.safetensors") == digest_file(model_folder / "model.safetensors")


@pytest.mark.parametrize("kept_flat", [False, True])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, {"rope_type": "linear", "factor": 2.0, "rope_theta": 777.0}),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_type": "linear", "factor": 2.0, "rope_theta": 777.0}),
        ({"rope_theta": 5e5}, {"rope_type": "default", "rope_theta": 5e5}),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_theta": 5e5},
            {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
        ),
    ],
)
def test_rotary_positions(
    tmp_path: Path, project: Path, model_folder: Path, given: dict[str, Any], expected: dict[str, Any], kept_flat: bool
) -> None:
    """Whether config.json has them in one object, as transformers 5 writes it, or side by side, as others do."""
    config = json.loads((model_folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_theta": 777.0, "rope_type": "default"}
    if kept_flat:
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    place = project / "data" / "sources" / "base" / "config.json"
    place.unlink()
    place.write_text(json.dumps(config))
    _, read = config_of(project, overrides_of_model_config=given)
    assert {key: read.rope_parameters[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"atention_dropout": 0.1}, r"type llama has no attribute 'atention_dropout'; did you mean 'attention_dropout'\?"),
        ({"num_hidden_layers": "two"}, r"config\.json cannot be opened: .*num_hidden_layers.*expected int"),
        ({"rope_scaling": {"rope_type": "strange", "factor": 2.0}}, r"has no rope_type 'strange'"),
        ({"hidden_size": 128}, r"its weights do not fill the LlamaForCausalLM"),
        ({"num_hidden_layers": 3}, r"its weights do not fill the LlamaForCausalLM"),
    ],
)
def test_overrides_that_cannot_be(project: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(RegrowError, match=message):
        fetch(project, overrides_of_model_config=given)


def test_config_and_tokenizer_from_elsewhere(tmp_path: Path, project: Path, model_folder: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    config = json.loads((other / "config.json").read_text()) | {"rms_norm_eps": 0.5}
    (other / "config.json").write_text(json.dumps(config))
    tiny.save_tokenizer(other, chat_template="of the other")
    link(project, "config", other)
    written, read = config_of(project, base_model_config="./other", overrides_of_model_config={"use_cache": False})
    assert (written["rms_norm_eps"], written["use_cache"], read.rms_norm_eps) == (0.5, False, 0.5)
    (other / "config.json").unlink()
    with pytest.raises(RegrowError, match=r"base_model_config.*not there|has no config\.json"):
        fetch(project, base_model_config="./other")


def test_the_tokenizer_comes_with_the_config() -> None:
    from pipeline.options.reading.source import parse
    from pipeline.options.recipe import check_source
    from pipeline.options.views import FetchOptions
    from tests.options.configs import GOOD

    def tokenizer(text: str) -> str | None:
        return check_source(parse(GOOD + text, "a")).view(FetchOptions).tokenizer_config

    assert tokenizer("") is None
    assert tokenizer("base_model_config: ./other\n") == "./other"
    assert tokenizer("base_model_config: ./other\ntokenizer_config: ./third\n") == "./third"


def test_a_config_is_read_as_the_class_that_is_named(project: Path, model_folder: Path) -> None:
    config = json.loads((model_folder / "config.json").read_text())
    del config["model_type"]
    place = project / "data" / "sources" / "base" / "config.json"
    place.unlink()
    place.write_text(json.dumps(config))
    with pytest.raises(RegrowError, match=r"config\.json cannot be opened"):
        fetch(project)
    written, read = config_of(project, cls_model_config="LlamaConfig")
    assert (written["model_type"], type(read).__name__) == ("llama", "LlamaConfig")
    for wrong in ("LamaConfig", "LlamaModel", "PreTrainedConfig"):
        with pytest.raises(RegrowError, match=f"no config class '{wrong}'"):
            fetch(project, cls_model_config=wrong)


def test_random_weights_are_the_same_each_time_and_need_no_others(tmp_path: Path, project: Path, model_folder: Path) -> None:
    from safetensors.numpy import load_file

    first, _, _ = fetch(project, reinit_weights=True)
    there = load_file(first["base"].path / "model.safetensors")
    (project / "data" / "sources" / "base" / "model.safetensors").unlink()
    again, _, _ = fetch(project, reinit_weights=True)
    assert again["base"].files == first["base"].files
    assert first["base"].files["config.json"]["sha256"] == digest_file(model_folder / "config.json")
    original = load_file(model_folder / "model.safetensors")
    assert there.keys() == original.keys()
    assert all((there[name] != original[name]).any() for name in there if there[name].ndim == 2)
    assert 0.015 < float(there["model.layers.0.mlp.up_proj.weight"].std()) < 0.025, "initializer_range is 0.02"


def test_random_weights_of_another_size(project: Path) -> None:
    from safetensors.numpy import load_file

    artifacts, _, _ = fetch(project, reinit_weights=True, overrides_of_model_config={"num_hidden_layers": 1, "hidden_size": 32})
    weights = load_file(artifacts["base"].path / "model.safetensors")
    assert weights["model.embed_tokens.weight"].shape == (259, 32)
    assert not any(".layers.1." in name for name in weights)
