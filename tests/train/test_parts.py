"""Training parts of the model: what is not named stays as it is, bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import Interrupted, RegrowError
from stages.train.model.neftune import document_lengths
from stages.train.model.parts import drawn_layers
from tests.train.workspace import FULL, LORA, SignalAt, finished, train

DECAYING = FULL | {"weight_decay": 0.5, "learning_rate": 1e-2}
LISA = DECAYING | {"lisa_n_layers": 1, "lisa_step_interval": 2}


def after(workspace: Path, options: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors before and after training."""
    trained, _ = train(workspace, options)
    return load_file(workspace / "data" / "base" / "model.safetensors"), load_file(trained.path / "model.safetensors")


def changed(before: dict[str, Tensor], now: dict[str, Tensor]) -> set[str]:
    assert before.keys() == now.keys()
    return {name for name in before if not now[name].equal(before[name])}


@pytest.mark.shows("unfrozen_parameters")
def test_only_parameters_that_are_named_are_trained(workspace: Path) -> None:
    patterns = [r"model\.layers\.1.mlp.(up|gate)_proj", r"model.+norm.weight$"]
    found = changed(*after(workspace, DECAYING | {"unfrozen_parameters": patterns}))
    norms = {f"model.layers.{layer}.{name}.weight" for layer in (0, 1) for name in ("input_layernorm", "post_attention_layernorm")}
    assert found == {f"model.layers.1.mlp.{name}_proj.weight" for name in ("up", "gate")} | norms | {"model.norm.weight"}


@pytest.mark.parametrize(
    ("rows", "expected"), [("[100:110]", range(100, 110)), ("[250:]", range(250, 259)), ("[:5]", range(5)), ("[7]", [7])]
)
def test_rows_that_are_not_named_stay(workspace: Path, rows: str, expected: Any) -> None:
    """Weight decay would change them without any gradient."""
    before, now = after(workspace, DECAYING | {"unfrozen_parameters": [f"model.embed_tokens.weight{rows}"]})
    name = "model.embed_tokens.weight"
    assert changed(before, now) == {name}
    assert (now[name] != before[name]).any(1).nonzero().flatten().tolist() == list(expected)


@pytest.mark.parametrize(("pattern", "wrong"), [
    ("layers.1", r"matches no parameter.*\n.*model\.layers\.0\.mlp\.up_proj\.weight"),
    ("model.embed_tokens.weight[250:260]", r"does not have.*\n.*0 to 258"),
])  # fmt: skip
def test_patterns_that_choose_nothing(workspace: Path, pattern: str, wrong: str) -> None:
    with pytest.raises(RegrowError, match=wrong):
        train(workspace, FULL | {"unfrozen_parameters": [pattern]})


def layers_changed(before: dict[str, Tensor], now: dict[str, Tensor]) -> set[int]:
    return {int(name.split(".")[2]) for name in changed(before, now) if ".layers." in name}


@pytest.mark.shows("lisa_n_layers", "lisa_step_interval")
def test_lisa_trains_the_drawn_layers_and_all_that_is_no_layer(workspace: Path) -> None:
    before, now = after(workspace, LISA | {"lisa_step_interval": 6})
    assert layers_changed(before, now) == set(drawn_layers(42, 0, 2, 1))
    assert {"model.embed_tokens.weight", "model.norm.weight"} <= changed(before, now)


def test_lisa_draws_again_after_its_interval(workspace: Path) -> None:
    expected = {layer for draw in range(6) for layer in drawn_layers(42, draw, 2, 1)}
    assert layers_changed(*after(workspace, LISA | {"lisa_step_interval": 1})) == expected == {0, 1}


@pytest.mark.shows("lisa_layers_attribute")
def test_lisa_needs_layers(workspace: Path) -> None:
    with pytest.raises(RegrowError, match=r"no list of layers at 'transformer\.h'.*\n.*model\.layers"):
        train(workspace, LISA | {"lisa_layers_attribute": "transformer.h"})
    with pytest.raises(RegrowError, match="3 layers of 2"):
        train(workspace, LISA | {"lisa_n_layers": 3})


@given(seed=st.integers(0, 2**32), draw=st.integers(0, 1000), layers=st.integers(1, 50), data=st.data())
def test_drawn_layers_are_a_function_of_seed_and_draw(seed: int, draw: int, layers: int, data: Any) -> None:
    count = data.draw(st.integers(1, layers))
    drawn = drawn_layers(seed, draw, layers, count)
    assert drawn == sorted(set(drawn)) == drawn_layers(seed, draw, layers, count)
    assert len(drawn) == count and set(drawn) <= set(range(layers))


def test_every_layer_has_its_turn() -> None:
    turns = [layer for draw in range(600) for layer in drawn_layers(0, draw, 6, 2)]
    assert all(abs(turns.count(layer) - 200) < 50 for layer in range(6))


NOISY = FULL | {"neftune_noise_alpha": 5.0}


@pytest.mark.shows("neftune_noise_alpha")
def test_noise_changes_what_is_learned(published: Path) -> None:
    plain, noisy = finished(published, FULL), finished(published, NOISY)
    assert plain.files["model.safetensors"] != noisy.files["model.safetensors"]
    assert 0 < abs(plain.log[0]["loss"] - noisy.log[0]["loss"]) < 1


def test_noise_is_as_large_as_the_paper_says(published: Path) -> None:
    from stages.train.model.build import build_model
    from tests.train.test_options import view

    model = build_model(published / "data" / "base", view(neftune_noise_alpha=5.0))
    seen: list[Tensor] = []
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    ids = torch.full((1, 40), 9)
    positions = torch.cat([torch.arange(10), torch.arange(30)])[None]
    for training in (False, True):
        model.train(training)(input_ids=ids, position_ids=positions, use_cache=False)
    noise = (seen[1] - seen[0])[0]
    for document, length in ((noise[:10], 10), (noise[10:], 30)):
        bound = 5 / (length * 64) ** 0.5
        assert 0.95 * bound < document.abs().max() <= bound * 1.0001
        assert abs(document.mean()) < bound / 10


def test_lengths_of_documents() -> None:
    positions = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]])
    assert document_lengths(positions).tolist() == [[3, 3, 3, 2, 2, 1], [6] * 6]


@pytest.mark.parametrize("options", [LISA, NOISY, LORA | {"neftune_noise_alpha": 5.0}], ids=["lisa", "neftune", "neftune under an adapter"])
def test_a_stopped_run_ends_with_the_same_bytes(published: Path, workspace: Path, options: dict[str, Any]) -> None:
    with pytest.raises(Interrupted):
        train(workspace, options, progress=SignalAt(3, signal.SIGTERM))
    assert train(workspace, options)[0].files == finished(published, options).files
