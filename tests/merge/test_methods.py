"""merge.method: what peft's own functions make of the same changes, on whole weights; and the same bytes whatever the order."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.merge_utils import dare_linear, magnitude_based_pruning, task_arithmetic, ties
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pipeline.artifact import Artifact
from pipeline.errors import RegrowError, StaleInput
from stages.merge import STAGE
from stages.merge.several.combining import Combination, Share, interpolate
from stages.merge.several.pruning import keep_largest, keep_random
from tests.merge.adapters import edit_config, llama, publish_adapter, publish_base, stored_tensors
from tests.tiny import publish_artifact, run_stage, save_model, save_tokenizer

BF16 = torch.bfloat16
Q: dict[str, Any] = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "up_proj"]}


def save_adapter(base: Path, folder: Path, seed: int, **changes: Any) -> None:
    """Another random adapter on ``base``."""
    torch.manual_seed(seed)
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **changes)
    )
    model.save_pretrained(folder)


def publish_others(workspace: Path, *fills: Callable[[Path], None], **facts: Any) -> None:
    """``data/others`` of folders that ``fills`` write."""

    def fill(folder: Path) -> None:
        for number, write in enumerate(fills):
            write(folder / f"{number:02d}")

    def describe(number: int) -> dict[str, Any]:
        is_adapter = (workspace / "data" / "others" / f"{number:02d}" / "adapter_config.json").exists()
        return {"folder": f"{number:02d}", "kind": "adapter" if is_adapter else "model", "path": None, "revision": None, "base": None}

    publish_artifact(workspace / "data", "others", fill)
    sources = [describe(number) | facts for number in range(len(fills))]
    publish_artifact(workspace / "data", "others", fill, sources=sources)


def adapter(workspace: Path, seed: int = 5, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: save_adapter(workspace / "data" / "base", folder, seed, **(Q | {"r": 2} | changes))


def model(seed: int = 7, dtype: torch.dtype = torch.float32, **overrides: Any) -> Callable[[Path], None]:
    """A model that differs from the base (seed 0) a little, as a fine-tuned one does."""

    def fill(folder: Path) -> None:
        llama(dtype, **overrides)(folder)
        random = torch.Generator().manual_seed(seed)
        tensors = load_file(folder / "model.safetensors")
        changed = {name: tensor + (0.01 * torch.randn(tensor.shape, generator=random)).to(dtype) for name, tensor in tensors.items()}
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})

    return fill


def trained_model(workspace: Path, seed: int = 3) -> None:
    """``data/trained`` of whole weights."""

    def fill(folder: Path) -> None:
        model(seed)(folder)
        save_tokenizer(folder)

    publish_artifact(workspace / "data", "trained", fill, kind="full")


def merge(workspace: Path, method: str, *weights: float, **more: Any) -> Artifact:
    first, *rest = weights
    densities = more.pop("densities", [None] * len(rest))
    others = [{"path": "x", "weight": weight, "density": density} for weight, density in zip(rest, densities, strict=True)]
    outputs, _ = run_stage(STAGE, workspace, {"merge": {"method": method, "weight": first, "others": others} | more})
    return outputs["merged"]


def peft_deltas(workspace: Path, *folders: Path) -> dict[str, list[torch.Tensor]]:
    """What each adapter adds to each weight, as peft computes it."""
    found: dict[str, list[torch.Tensor]] = {}
    for folder in folders:
        loaded: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(workspace / "data" / "base"), str(folder))
        for name, module in loaded.base_model.model.named_modules():
            if hasattr(module, "get_delta_weight"):
                found.setdefault(f"{name}.weight", []).append(module.get_delta_weight("default").detach())
    return found


def two_adapters(workspace: Path, dtype: torch.dtype = torch.float32) -> dict[str, list[torch.Tensor]]:
    publish_base(workspace, llama(dtype))
    publish_adapter(workspace, **Q)
    publish_others(workspace, adapter(workspace))
    return peft_deltas(workspace, workspace / "data" / "trained", workspace / "data" / "others" / "00")


EXPECTED: dict[str, Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor]] = {
    "linear": task_arithmetic,
    "ties": lambda deltas, weights: ties(deltas, weights, density=0.3),
}


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("method", EXPECTED)
def test_adapters_of_different_ranks_are_merged_as_peft_merges_their_changes(tmp_path: Path, method: str, dtype: torch.dtype) -> None:
    """add_weighted_adapter does this before its SVD, which loses what does not fit the rank."""
    deltas = two_adapters(tmp_path, dtype)
    merged = stored_tensors(merge(tmp_path, method, 0.75, -0.5, **({"density": 0.3} if method == "ties" else {})).path)
    before = stored_tensors(tmp_path / "data" / "base")
    assert merged.keys() == before.keys() and len(deltas) == 4
    for name, tensor in merged.items():
        expected = before[name]
        if name in deltas:
            expected = (before[name].float() + EXPECTED[method](deltas[name], torch.tensor([0.75, -0.5]))).to(dtype)
            assert not expected.equal(before[name])
        assert tensor.dtype == dtype and tensor.equal(expected), name


def test_linear_is_what_both_adapters_compute_in_peft(tmp_path: Path) -> None:
    two_adapters(tmp_path)
    loaded: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "data" / "base"), str(tmp_path / "data" / "trained"), adapter_name="a"
    )
    loaded.load_adapter(str(tmp_path / "data" / "others" / "00"), adapter_name="b")
    loaded.add_weighted_adapter(["a", "b"], [0.75, 0.5], "both", combination_type="cat")
    loaded.set_adapter("both")
    expected = loaded.merge_and_unload(adapter_names=["both"]).state_dict()
    for name, tensor in stored_tensors(merge(tmp_path, "linear", 0.75, 0.5).path).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-6)


def test_models_with_weights_of_one_in_all_are_averaged(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    trained_model(tmp_path)
    publish_others(tmp_path, model(7), model(8))
    parts = [stored_tensors(tmp_path / "data" / name) for name in ("trained", "others/00", "others/01")]
    for name, tensor in stored_tensors(merge(tmp_path, "linear", 0.5, 0.25, 0.25).path).items():
        expected = 0.5 * parts[0][name] + 0.25 * parts[1][name] + 0.25 * parts[2][name]
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-6)


def test_an_adapter_and_a_model(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, **Q)
    publish_others(tmp_path, model())
    artifact = merge(tmp_path, "ties", 1.0, 1.0, density=0.2, densities=[0.6])
    before, other = stored_tensors(tmp_path / "data" / "base"), stored_tensors(tmp_path / "data" / "others" / "00")
    own = peft_deltas(tmp_path, tmp_path / "data" / "trained")
    for name, tensor in stored_tensors(artifact.path).items():
        theirs = other[name].double() - before[name].double()
        kept = [magnitude_based_pruning(theirs.float(), 0.6)]
        kept += [magnitude_based_pruning(own[name][0], 0.2)] if name in own else []
        expected = before[name] + ties(kept, torch.ones(len(kept)), density=0.999999999)
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)
    assert artifact.content["changed"] == len(before) and artifact.content["method"] == "ties"


def test_the_directory_is_that_of_the_trained_model(tmp_path: Path) -> None:
    two_adapters(tmp_path, BF16)
    artifact = merge(tmp_path, "linear", 0.5, 0.5)
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"} <= artifact.files.keys()
    assert AutoModelForCausalLM.from_pretrained(artifact.path).dtype == BF16
    assert artifact.content["kind"] == "adapter" and artifact.content["changed"] == 4


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_masks_are_drawn_by_seed_and_name_alone(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    two_adapters(tmp_path)
    first = merge(tmp_path, method, 1.0, 1.0, density=0.5, seed=1)
    torch.manual_seed(1234)
    monkeypatch.setattr("stages.merge.several.pruning._BLOCK", 1000)
    again = merge(tmp_path, method, 1.0, 1.0, density=0.5, seed=1)
    assert again.digest == first.digest != merge(tmp_path, method, 1.0, 1.0, density=0.5, seed=2).digest


def test_dare_keeps_the_mean(tmp_path: Path) -> None:
    delta = torch.ones(400, 500)
    kept = keep_random(delta, 0.3, 42, 0, "a")
    torch.manual_seed(0)
    theirs = dare_linear([delta], torch.ones(1), 0.3)
    assert set(kept.flatten().tolist()) == set(theirs.flatten().tolist())
    assert kept.mean().item() == pytest.approx(1, abs=0.01) == pytest.approx(theirs.mean().item(), abs=0.01)
    assert not kept.equal(keep_random(delta, 0.3, 42, 0, "b")) and not kept.equal(keep_random(delta, 0.3, 42, 1, "a"))


def test_dare_is_the_same_on_every_machine() -> None:
    """Philox is specified (Random123): these bits must never change."""
    kept = keep_random(torch.ones(64), 0.5, 42, 0, "model.norm.weight") > 0
    assert "".join("01"[bit] for bit in kept.tolist()) == "1101001011101011001100100001010001111011100001111011011111010001"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40), st.floats(0.01, 1))
def test_the_largest_are_kept(values: list[float], density: float) -> None:
    delta = torch.tensor(values)
    kept, theirs = keep_largest(delta, density), magnitude_based_pruning(delta, density)
    assert sorted(kept.abs().tolist()) == sorted(theirs.abs().tolist())  # among equals, the first ones
    assert all(mine in (0, value) for mine, value in zip(kept.tolist(), values, strict=True))


def test_of_equal_changes_the_first_stay() -> None:
    assert keep_largest(torch.tensor([[1.0, -1], [2, 1]]), 0.5).tolist() == [[1, 0], [2, 0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(1, 700), st.integers(0, 10**6))
def test_ties_of_any_shape_equals_peft(sources: int, size: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    deltas = [torch.randn(size, generator=random) for _ in range(sources)]
    weights = torch.rand(sources, generator=random)
    combination = Combination("ties", [Share(weight, 0.5) for weight in weights.tolist()], 0)
    assert combination.apply("a", torch.zeros(size), deltas).equal(ties(deltas, weights, 0.5))


def test_large_tensors_are_joined_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    deltas = [torch.randn(7, 300, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    combination = Combination("ties", [Share(1.0, 0.7)] * 3, 0)
    whole = combination.apply("a", torch.zeros(7, 300), deltas)
    monkeypatch.setattr("stages.merge.several.combining._BLOCK", 256)
    assert whole.equal(combination.apply("a", torch.zeros(7, 300), deltas))


def arc(share: float, first: np.ndarray, second: np.ndarray) -> Any:
    """SLERP as mergekit computes it (Shoemake 1985): the angle of the normed tensors, applied to the tensors as they are."""
    cosine = np.sum(first / np.linalg.norm(first) * (second / np.linalg.norm(second)))
    if abs(cosine) > 0.9995:
        return (1 - share) * first + share * second
    angle = np.arccos(cosine)
    return np.sin((1 - share) * angle) / np.sin(angle) * first + np.sin(share * angle) / np.sin(angle) * second


@pytest.mark.parametrize("noise", [0.001, 0.1, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_slerp(share: float, noise: float) -> None:
    random = torch.Generator().manual_seed(0)
    first = torch.randn(33, 50, generator=random)
    second = first + noise * torch.randn(33, 50, generator=random)
    expected = torch.from_numpy(arc(share, first.double().numpy(), second.double().numpy())).float()
    torch.testing.assert_close(interpolate(first, second, share), expected, atol=1e-6, rtol=1e-6)


def test_slerp_goes_along_the_circle() -> None:
    east, north = torch.tensor([1.0, 0]), torch.tensor([0.0, 1])
    torch.testing.assert_close(interpolate(east, north, 1 / 3), torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))
    assert interpolate(torch.zeros(2), north, 0.25).tolist() == [0, 0.25]


def test_slerp_of_two_models(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    trained_model(tmp_path)
    publish_others(tmp_path, model(7))
    first, second = (stored_tensors(tmp_path / "data" / name) for name in ("trained", "others/00"))
    for name, tensor in stored_tensors(merge(tmp_path, "slerp", 1, 3).path).items():
        expected = torch.from_numpy(arc(0.75, first[name].double().numpy(), second[name].double().numpy())).float()
        torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=1e-5)


def test_ends_that_one_source_unties_are_untied(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, **Q)
    publish_others(tmp_path, adapter(tmp_path, target_modules=["lm_head"]))
    artifact = merge(tmp_path, "linear", 1.0, 1.0)
    merged, before = stored_tensors(artifact.path), stored_tensors(tmp_path / "data" / "base")
    assert merged["model.embed_tokens.weight"].equal(before["model.embed_tokens.weight"])
    assert not merged["lm_head.weight"].equal(merged["model.embed_tokens.weight"])
    assert json.loads((artifact.path / "config.json").read_text())["tie_word_embeddings"] is False
    assert AutoModelForCausalLM.from_pretrained(artifact.path).lm_head.weight.equal(merged["lm_head.weight"])


def both(first: Callable[[Path], None], second: Callable[[Path], None]) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        first(folder)
        second(folder)

    return fill


REFUSED: dict[str, tuple[Callable[[Path], Callable[[Path], None]], str]] = {
    "another architecture": (
        lambda root: lambda folder: save_model(folder, num_hidden_layers=1),
        "this model does not have model.layers.1",
    ),
    "another width": (lambda root: lambda folder: save_model(folder, intermediate_size=96), "but the base has"),
    "an adapter of another model": (
        lambda root: both(adapter(root), _rename),
        "layers.9",
    ),
    "a setting that cannot be merged": (
        lambda root: both(adapter(root), edit_config(peft_type="LOHA")),
        "peft_type",
    ),
    "repeated layers": (
        lambda root: both(adapter(root), edit_config(layer_replication=[[0, 1]])),
        "layer_replication",
    ),
}


def _rename(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name.replace("layers.1", "layers.9"): tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_the_base_is_refused_by_name(tmp_path: Path, case: str) -> None:
    fill, expected = REFUSED[case]
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, **Q)
    publish_others(tmp_path, fill(tmp_path))
    with pytest.raises(RegrowError) as caught:
        merge(tmp_path, "linear", 1.0, 1.0)
    assert "merge.others[0]" in str(caught.value) and expected in str(caught.value)


def test_an_adapter_that_regrow_trained_on_another_base(tmp_path: Path) -> None:
    two_adapters(tmp_path)
    publish_others(tmp_path, adapter(tmp_path), base="0" * 64)
    with pytest.raises(RegrowError, match=r"merge.others\[0\] was trained on another base"):
        merge(tmp_path, "linear", 1.0, 1.0)


def test_others_that_were_not_fetched(tmp_path: Path) -> None:
    two_adapters(tmp_path)
    with pytest.raises(StaleInput, match="dvc repro"):
        merge(tmp_path, "linear", 1.0, 1.0, 1.0)


def test_weights_that_make_infinite(tmp_path: Path) -> None:
    two_adapters(tmp_path, torch.float16)
    with pytest.raises(RegrowError, match="smaller weights"):
        merge(tmp_path, "linear", 1e30, 1e30)


def test_the_card_says_what_was_merged(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())

    def write_card(folder: Path) -> None:
        (folder / "README.md").write_text("---\na: b\n---\n\n# Adapter for x\n")

    publish_adapter(tmp_path, write_card, **Q)
    publish_others(tmp_path, adapter(tmp_path), path="owner/name")
    card = (merge(tmp_path, "linear", 0.75, 0.25).path / "README.md").read_text()
    assert card.endswith("By the method linear:\n\n- the model described above: weight 0.75\n- owner/name: weight 0.25\n")
