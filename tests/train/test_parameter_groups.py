"""Which learning rate and weight decay each parameter gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import Trainer, TrainingArguments

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.optimizers.build import build_optimizer
from tests.train.stepping import tiny_model, view
from tests.train.workspace import FULL, finished, read_log, train

Given = dict[str, tuple[float, float]]


def given(model: Any, options: TrainOptions) -> Given:
    """Learning rate and weight decay by name."""
    return rates_of(model, build_optimizer(model, options, 0))


def rates_of(model: Any, optimizer: torch.optim.Optimizer) -> Given:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optimizer.param_groups
    return {names[id(parameter)]: (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}


@pytest.fixture(autouse=True)
def _quiet(recwarn: pytest.WarningsRecorder) -> None:
    """PEFT warns of adapters on tied embeddings."""


def adapted(**config: Any) -> Any:
    return get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj", "v_proj", "embed_tokens"], **config))


@pytest.mark.shows("weight_decay", "learning_rate")
def test_decay_is_transformers(tmp_path: Path) -> None:
    model = tiny_model()
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=0.5, weight_decay=0.1, use_cpu=True, report_to="none")
    assert given(model, view(learning_rate=0.5, weight_decay=0.1)) == rates_of(model, Trainer(model, arguments).create_optimizer())


def test_the_main_group_comes_first() -> None:
    """It is the one that log.csv shows."""
    model = tiny_model()
    groups = [{"name": "all", "modules": ["model"], "lr": 0.3}]
    first, second, *others = build_optimizer(model, view(learning_rate=0.5, weight_decay=0.1, lr_groups=groups), 0).param_groups
    assert (first["lr"], first["weight_decay"], first["params"]) == (0.5, 0.1, [])
    assert (second["lr"], second["weight_decay"]) == (0.5, 0.0)
    assert [(group["lr"], group["weight_decay"]) for group in others] == [(0.3, 0.1), (0.3, 0.0)]


@pytest.mark.shows("embedding_lr", "embedding_lr_scale")
@pytest.mark.parametrize(("option", "rate"), [({"embedding_lr": 0.02}, 0.02), ({"embedding_lr_scale": 0.1}, 0.05)])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings(option: dict[str, float], rate: float, tied: bool) -> None:
    model = tiny_model()
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    found = given(model, view(learning_rate=0.5, weight_decay=0.1, **option))
    outer = {name for name in found if "embed_tokens" in name or "lm_head" in name}
    assert len(outer) == (1 if tied else 2)
    assert {found[name] for name in outer} == {(rate, 0.0)}
    assert {lr for name, (lr, _) in found.items() if name not in outer} == {0.5}


def test_an_adapter_on_the_embeddings_is_of_the_embeddings() -> None:
    found = given(adapted(), view(learning_rate=0.5, embedding_lr=0.02))
    assert {lr for name, (lr, _) in found.items() if "embed_tokens" in name} == {0.02}
    assert {lr for name, (lr, _) in found.items() if "embed_tokens" not in name} == {0.5}


def test_a_rate_for_embeddings_that_are_frozen_is_refused() -> None:
    model = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(RegrowError, match="embedding_lr_scale is set, and neither embeddings nor output head are trained"):
        given(model, view(embedding_lr_scale=0.5))


@pytest.mark.shows("lr_groups.modules", "lr_groups.lr", "lr_groups.name")
def test_groups_by_name() -> None:
    groups = [{"name": "mlp", "modules": ["mlp"], "lr": 0.1}, {"name": "layer 1", "modules": ["layers.1.", "final"], "lr": 0.2}]
    found = given(tiny_model(), view(learning_rate=0.5, weight_decay=0.1, lr_groups=groups))
    for name, (rate, _) in found.items():
        assert rate == (0.1 if "mlp" in name else 0.2 if "layers.1." in name else 0.5)
    assert found["model.layers.1.self_attn.q_proj.bias"] == (0.2, 0.0)
    with pytest.raises(RegrowError, match=r"lr_groups: no trained parameter's name holds 'conv' \(group 'convolutions'\)"):
        given(tiny_model(), view(lr_groups=[{"name": "convolutions", "modules": ["conv"], "lr": 0.1}]))


def test_a_group_of_dion_keeps_its_rate() -> None:
    """Also where it is that of the parameters which Dion does not train."""
    groups = [{"name": "mlp", "modules": ["mlp"], "lr": 0.1}]
    found = given(tiny_model(), view(optimizer="dion", dion_lr=0.4, learning_rate=0.1, lr_groups=groups))
    assert {lr for name, (lr, _) in found.items() if "mlp" in name} == {0.1}
    assert {lr for name, (lr, _) in found.items() if name.endswith("proj.weight") and "mlp" not in name} == {0.4}


def test_loraplus_multiplies_the_rate_of_dion() -> None:
    found = given(adapted(), view(optimizer="dion", dion_lr=0.4, learning_rate=0.1, loraplus_lr_ratio=4, adapter="lora"))
    assert {lr for name, (lr, _) in found.items() if "lora_A" in name} == {0.4}
    assert {lr for name, (lr, _) in found.items() if "lora_B" in name} == {1.6}


@pytest.mark.parametrize(
    ("modules", "options", "says"),
    [
        (["k_porj"], {}, "no trained parameter's name holds 'k_porj'"),
        (["mlp.up_proj"], {}, "nothing is left for group 'last'"),
        (["embed_tokens"], {"embedding_lr": 0.2}, "nothing is left for group 'last'"),
    ],
)
def test_groups_without_members_are_refused(modules: list[str], options: dict[str, Any], says: str) -> None:
    groups = [{"name": "first", "modules": ["mlp"], "lr": 0.1}, {"name": "last", "modules": modules, "lr": 0.3}]
    with pytest.raises(RegrowError, match=f"lr_groups: {says}"):
        given(tiny_model(), view(lr_groups=groups, **options))


@pytest.mark.shows("loraplus_lr_ratio", "loraplus_lr_embedding")
@pytest.mark.parametrize("config", [{}, {"use_dora": True}, {"modules_to_save": ["norm"]}])
def test_loraplus_is_pefts(config: dict[str, Any]) -> None:
    model = adapted(**config)
    settings = {"lr": 0.5, "loraplus_lr_ratio": 4, "loraplus_lr_embedding": 0.01, "loraplus_weight_decay": 0.1}
    expected = rates_of(model, create_loraplus_optimizer(model, torch.optim.AdamW, **settings))
    options = view(learning_rate=0.5, weight_decay=0.1, loraplus_lr_ratio=4, loraplus_lr_embedding=0.01, adapter="lora")
    found = given(model, options)
    assert {name: rate for name, (rate, _) in found.items()} == {name: rate for name, (rate, _) in expected.items()}
    assert {name for name in found if found[name] != expected[name]} == {name for name in found if "norm." in name}  # PEFT decays them
    assert len({rate for rate, _ in expected.values()}) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"lr_groups": [{"name": "mlp", "modules": ["mlp"], "lr": 1e-9}]},
        {"embedding_lr": 1e-9},
        {"adapter": "lora", "loraplus_lr_ratio": 16},
    ],
)
def test_a_run_takes_groups_and_logs_the_main_rate(published: Path, workspace: Path, options: dict[str, Any]) -> None:
    plain = finished(published, FULL | {key: value for key, value in options.items() if key == "adapter"})
    trained, _ = train(workspace, FULL | options)
    assert trained.files != plain.files
    assert [line["learning_rate"] for line in read_log(trained)] == [line["learning_rate"] for line in plain.log]
