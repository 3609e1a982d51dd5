"""The parity check: what was trained passes whatever the adapter, and a merge that is wrong in any way publishes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.errors import RegrowError
from stages.merge import STAGE, arithmetic, on_demand
from stages.merge.adapter_config import LoraConfig, read_config
from stages.merge.changes import Adapter
from stages.merge.parity import EXACT, compare
from stages.merge.unmerged import open_unmerged
from tests.merge.adapters import Fill, gpt2, llama, mixtral, peft_model, publish_adapter, publish_base
from tests.merge.test_merge import ALL, BF16, FLAVOURS, STACKS, TIED
from tests.tiny import publish_artifact, publish_bins, run_stage
from tests.train.workspace import Heard

MORE: dict[str, tuple[Fill, dict[str, Any]]] = {
    **{f"tied ends, {name}": (llama(), settings) for name, (settings, _) in TIED.items()},
    "layers repeated": (llama(BF16), {"target_modules": ["q_proj", "down_proj"], "layer_replication": [[0, 2], [0, 1], [1, 2]]}),
    "experts stored one by one": (mixtral(BF16), {"target_modules": ["q_proj"], "target_parameters": STACKS}),
    "beside experts stored one by one": (mixtral(), {"target_modules": ["q_proj"]}),
}


def merge(workspace: Path, **options: Any) -> tuple[Artifact, dict[str, Any]]:
    """What was published, and what was observed."""
    observed: dict[str, Any] = {}
    outputs, _ = run_stage(STAGE, workspace, {"merge": options}, observed=observed)
    return outputs["merged"], observed


def weaken(factor: float) -> Callable[[Path], None]:
    """An adapter that changes little: what a short training makes."""

    def edit(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        save_file({name: tensor * factor if "lora_B" in name else tensor for name, tensor in load_file(file).items()}, file)

    return edit


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("large", [2**28, 4000], ids=["whole", "in parts"])
@pytest.mark.parametrize("case", [*FLAVOURS, *MORE])
def test_without_weights_in_memory_peft_computes_the_same(tmp_path: Path, case: str, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand, "LARGE", large)
    base, settings = (FLAVOURS | MORE)[case]
    publish_base(tmp_path, base)
    publish_adapter(tmp_path, **settings)
    (tmp_path / "scratch").mkdir()
    ids, data = torch.arange(24)[None], tmp_path / "data"
    model = open_unmerged(data / "base", data / "trained", read_config(data / "trained"), tmp_path / "scratch", None, ids)
    with torch.no_grad():
        expected, found = peft_model(tmp_path, dtype=torch.float32)(ids).logits, model(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5 * expected.std().item(), rtol=0)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("case", MORE)
def test_a_right_merge_passes(tmp_path: Path, case: str) -> None:
    """The other flavours pass in test_merge, where every merge is checked too."""
    publish_base(tmp_path, MORE[case][0])
    publish_adapter(tmp_path, **MORE[case][1])
    _, observed = merge(tmp_path)
    assert observed["parity"]["exact"]["relative"] < EXACT / 2


def test_the_manifest_says_what_held_and_the_record_how_well(tmp_path: Path) -> None:
    publish_base(tmp_path, llama(BF16))
    publish_adapter(tmp_path, **ALL)
    artifact, observed = merge(tmp_path)
    facts = artifact.content["parity"]
    assert (facts["rows"], facts["tokens"], facts["split"], facts["row_numbers"]) == (2, 42 + 51, "eval", [4, 5])
    assert facts["limit"] == EXACT and facts["rounded"] == {"dtype": "bfloat16", "limit": 1.0}
    exact, rounded = observed["parity"]["exact"], observed["parity"]["rounded"]
    assert 0 < exact["relative"] < 1e-4 < rounded["relative"] < 1 and rounded["row"] in (4, 5)
    assert 0 <= exact["divergence"] < 1e-6 < rounded["divergence"] and exact["agreeing"] == 1.0
    assert not {"relative", "largest", "divergence"} & {*json.dumps(artifact.content).replace('"', " ").split()}, "they differ by machine"


def test_trained_rows_serve_where_none_is_held_out(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, **ALL)
    publish_bins(tmp_path / "data", [[2, 5], [5], [1]])
    artifact, _ = merge(tmp_path, parity_rows=2)
    assert artifact.content["parity"]["split"] == "train" and artifact.content["parity"]["row_numbers"] == [2, 5]


def test_what_is_not_compared_says_why(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, **ALL)
    off, observed = merge(tmp_path, parity_rows=0)
    assert off.content["parity"] == {"absent": "merge.parity_rows is 0"} and not observed
    publish_bins(tmp_path / "data", [])
    assert "no row" in merge(tmp_path)[0].content["parity"]["absent"]
    publish_artifact(tmp_path / "data", "trained", llama(), kind="full")
    full, observed = merge(tmp_path)
    assert "no adapter" in full.content["parity"]["absent"] and not observed


def refused(workspace: Path) -> str:
    with pytest.raises(RegrowError) as caught:
        merge(workspace)
    assert not (workspace / "data" / "merged").exists()
    return str(caught.value)


def doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = LoraConfig.scale
    monkeypatch.setattr(LoraConfig, "scale", lambda self, module: 2 * scale(self, module))


def one_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Adapter.apply

    def leave_out(self: Adapter, name: str, weight: Tensor) -> Tensor:
        return weight if name.endswith(("layers.1.self_attn.k_proj.weight", "h.1.attn.c_proj.weight")) else apply(self, name, weight)

    monkeypatch.setattr(Adapter, "apply", leave_out)


def without_magnitude(monkeypatch: pytest.MonkeyPatch) -> None:
    add = arithmetic.add_low_rank

    def plain(weight: Tensor, a: Tensor, b: Tensor, scale: float, magnitude: Tensor | None, *, transposed: bool) -> Tensor:
        return add(weight, a, b, scale, None, transposed=transposed)

    monkeypatch.setattr("stages.merge.changes.add_low_rank", plain)


WRONG = {"doubled": doubled, "one left out": one_left_out, "without magnitude": without_magnitude}
BASES: dict[str, tuple[Fill, dict[str, Any]]] = {
    "float32": (llama(), ALL),
    "bfloat16": (llama(BF16), ALL),
    "float16": (llama(torch.float16), ALL),
    "transposed": (gpt2(BF16), {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
}


@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.parametrize("base", BASES)
def test_a_wrong_merge_is_refused_however_little_was_trained(
    tmp_path: Path, base: str, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill, settings = BASES[base]
    publish_base(tmp_path, fill)
    publish_adapter(tmp_path, weaken(0.02), use_dora=mistake == "without magnitude", **settings)
    right, _ = merge(tmp_path)
    assert right.content["parity"]["rows"] == 2
    for file in sorted(right.path.iterdir()):
        file.unlink()
    right.path.rmdir()
    WRONG[mistake](monkeypatch)
    message = refused(tmp_path)
    assert "row " in message and f"the limit is {EXACT:.2g}" in message and "merge.parity_rows: 0" in message


def test_a_tensor_that_is_stored_otherwise_than_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little to move the logits of a bfloat16 model by more than rounding does."""
    from stages.merge.plan import Plan

    merged = Plan.merge

    def nudge(self: Plan, name: str) -> Tensor:
        tensor = merged(self, name)
        return tensor if name != "model.layers.0.mlp.up_proj.weight" else tensor.index_fill(0, torch.tensor([3]), 0.01)

    publish_base(tmp_path, llama(BF16))
    publish_adapter(tmp_path, **ALL)
    monkeypatch.setattr(Plan, "merge", nudge)
    assert "model.layers.0.mlp.up_proj.weight" in refused(tmp_path)


def test_stacks_that_peft_merges_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.layer import ParamWrapper

    publish_base(tmp_path, mixtral(BF16))
    publish_adapter(tmp_path, target_modules=["q_proj"], target_parameters=STACKS)
    monkeypatch.setattr(ParamWrapper, "merge", lambda self, *_, **__: None)
    assert "does not compute what was trained" in refused(tmp_path)


def test_who_merges_in_memory_is_said(tmp_path: Path) -> None:
    publish_base(tmp_path, mixtral())
    publish_adapter(tmp_path, target_modules=["q_proj"], target_parameters=STACKS)
    heard = Heard()
    outputs, _ = run_stage(STAGE, tmp_path, progress=heard)
    assert outputs["merged"].content["merged_by"] == "peft, in memory"
    assert any("whole model in memory" in message for message in heard.said)


def test_differences_by_hand() -> None:
    reference, other = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[2.0, 0.0], [3.0, 2.0]])
    found = compare(reference, other, 7)
    assert (found.row, found.largest, found.agreeing) == (7, 3.0, 0.5)
    assert found.relative == pytest.approx(3 / 2**0.5)
    sure, unsure = torch.tensor([0.0, 2.0]).softmax(0), torch.tensor([3.0, 2.0]).softmax(0)
    assert found.divergence == pytest.approx(float((sure * (sure / unsure).log()).sum()), rel=1e-5)


def test_masked_logits_must_be_masked_in_both() -> None:
    masked = torch.tensor([[1.0, -torch.inf, -3.4e38]])
    assert compare(masked, masked, 0).relative == 0.0 and compare(masked, masked, 0).divergence == 0.0
    assert compare(masked, torch.tensor([[1.0, 0.0, -3.4e38]]), 0).relative == float("inf")
    assert compare(torch.full((1, 2), torch.nan), torch.full((1, 2), torch.nan), 0).relative == float("inf")
