"""Each option of an adapter, by what the published adapter holds."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import Llama4ForCausalLM, Llama4TextConfig

from pipeline.errors import Interrupted, RegrowError
from stages.train.adapters.adapter import add_adapter
from stages.train.adapters.beginning import lora_layers
from stages.train.adapters.normal_float import BLOCK, loftq, normal_float_values, round_to_normal_float
from stages.train.model.build import build_model
from tests.tiny import publish_artifact
from tests.train.test_options import view
from tests.train.workspace import FULL, SignalAt, finished, train

LORA: dict[str, Any] = FULL | {"adapter": "lora", "lora_r": 4, "learning_rate": 1e-2, "max_steps": 2}
ALL: dict[str, Any] = {"lora_target_linear": True}
SOME: dict[str, Any] = {"lora_target_modules": ["q_proj"]}
STILL = {"learning_rate": 1e-30}
"""Steps that change nothing: what is published is the beginning."""

PREFIX = "base_model.model."
Q = "model.layers.0.self_attn.q_proj"


class Published:
    """An adapter's tensors, by names in the base model, and its configuration."""

    def __init__(self, workspace: Path, **options: Any) -> None:
        trained, self.metrics = train(workspace, LORA | options)
        self.folder = trained.path
        self.base: dict[str, Tensor] = load_file(workspace / "data" / "base" / "model.safetensors")
        tensors = load_file(trained.path / "adapter_model.safetensors")
        self.tensors: dict[str, Tensor] = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
        self.config = json.loads((trained.path / "adapter_config.json").read_text())

    def factors(self, module: str = Q) -> tuple[Tensor, Tensor]:
        return self.tensors[f"{module}.lora_A.weight"], self.tensors[f"{module}.lora_B.weight"]

    def adapted(self) -> set[str]:
        """Last parts of the names of modules."""
        return {name.partition(".lora_")[0].rpartition(".")[2] for name in self.tensors if ".lora_" in name}

    def layers(self) -> set[int]:
        return {int(name.split(".")[2]) for name in self.tensors}


HOLDS: dict[str, tuple[dict[str, Any], Callable[[Published], bool]]] = {
    "lora_exclude_modules": (ALL | {"lora_exclude_modules": ["down_proj"]}, lambda found: "down_proj" not in found.adapted() > {"up_proj"}),
    "an excluding pattern": (ALL | {"lora_exclude_modules": r".*\.1\..*"}, lambda found: found.layers() == {0}),
    "lora_modules_to_save": (
        SOME | {"lora_modules_to_save": ["norm"]},
        lambda found: not torch.equal(found.tensors["model.norm.weight"], found.base["model.norm.weight"]),
    ),
    "lora_rank_pattern": (
        ALL | {"lora_rank_pattern": {"q_proj": 2}},
        lambda found: (found.factors()[0].shape[0], found.factors(Q.replace("q_", "v_"))[0].shape[0]) == (2, 4),
    ),
    "lora_alpha_pattern": (ALL | {"lora_alpha_pattern": {"q_proj": 3}}, lambda found: found.config["alpha_pattern"] == {"q_proj": 3}),
    "lora_target_parameters": (
        SOME | {"lora_target_parameters": ["mlp.up_proj.weight"]},
        lambda found: found.adapted() == {"q_proj", "up_proj"},
    ),
    "the rank of a parameter": (
        SOME | {"lora_target_parameters": ["mlp.up_proj.weight"], "lora_rank_pattern": {"up_proj.weight": 2}},
        lambda found: len(found.factors("model.layers.0.mlp.up_proj")[0]) == 2,
    ),
    "parameters alone": ({"lora_target_parameters": "mlp.up_proj.weight"}, lambda found: found.adapted() == {"up_proj"}),
    "peft_layers_to_transform": (SOME | {"peft_layers_to_transform": [1]}, lambda found: found.layers() == {1}),
    "every linear layer of one": (
        ALL | {"peft_layers_to_transform": [1]},
        lambda found: found.layers() == {1} and len(found.adapted()) == 7,
    ),
    "the same by PEFT's name": (
        {"lora_target_modules": "all-linear", "peft_layers_to_transform": [0]},
        lambda found: found.layers() == {0} and len(found.adapted()) == 7,
    ),
    "peft_layers_pattern": (
        SOME | {"peft_layers_to_transform": [1], "peft_layers_pattern": ["layers"]},
        lambda found: found.layers() == {1},
    ),
    "peft_layer_replication": (SOME | {"peft_layer_replication": [[0, 2], [0, 1]]}, lambda found: found.layers() == {0, 1, 2}),
    "peft_trainable_token_indices": (
        SOME | {"peft_trainable_token_indices": [40, 41]},
        lambda found: found.tensors["model.embed_tokens.token_adapter.trainable_tokens_delta"].shape == (2, 64),
    ),
    "peft_ensure_weight_tying": (
        {"lora_target_modules": ["embed_tokens", "lm_head"], "peft_ensure_weight_tying": True},
        lambda found: torch.equal(found.tensors["model.embed_tokens.lora_embedding_A"].T, found.tensors["lm_head.lora_B.weight"]),
    ),
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.shows(
    "lora_exclude_modules", "lora_modules_to_save", "lora_rank_pattern", "lora_alpha_pattern", "lora_target_parameters",
    "peft_layers_to_transform", "peft_layers_pattern", "peft_layer_replication", "peft_trainable_token_indices",
    "peft_ensure_weight_tying",
)  # fmt: skip
@pytest.mark.parametrize("option", HOLDS)
def test_the_adapter_holds_what_was_asked_for(workspace: Path, option: str) -> None:
    options, holds = HOLDS[option]
    assert holds(Published(workspace, **options))


def test_alpha_scales_single_modules(workspace: Path) -> None:
    layers = build_model(workspace / "data" / "base", view(adapter="lora", lora_r=4, lora_alpha_pattern={"q_proj": 2}))
    scales = {name.rpartition(".")[2]: layer.scaling["default"] for name, layer in lora_layers(layers)}
    assert scales == {"q_proj": 0.5, "v_proj": 4}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "excluded": (ALL | {"lora_exclude_modules": ["nothing"]}, "lora_exclude_modules: .* no module 'nothing'"),
    "excluding pattern": (ALL | {"lora_exclude_modules": "nothing"}, "lora_exclude_modules: .* no module 'nothing'"),
    "saved": (SOME | {"lora_modules_to_save": ["norm", "nothing"]}, "lora_modules_to_save: .* no module 'nothing'"),
    "rank": (SOME | {"lora_rank_pattern": {"v_proj": 2}}, r"lora_rank_pattern: 'v_proj' matches nothing.*\n.*self_attn\.q_proj"),
    "rank of a module with parameters": (
        {"lora_target_parameters": "mlp.up_proj.weight", "lora_rank_pattern": {"up_proj": 2}},
        r"lora_rank_pattern: 'up_proj' matches nothing.*\n.*up_proj\.weight",
    ),
    "alpha": (SOME | {"lora_alpha_pattern": {"v_proj": 2}}, "lora_alpha_pattern: 'v_proj' matches nothing"),
    "parameter": ({"lora_target_parameters": "nothing.weight"}, "lora_target_parameters: .* no parameter 'nothing.weight'"),
    "excluded parameter": (
        SOME | {"lora_target_parameters": ["mlp.up_proj.weight"], "lora_exclude_modules": ["up_proj"]},
        "lora_exclude_modules leaves out model.layers.0.mlp.up_proj, and lora_target_parameters adapts its weight",
    ),
    "vector": ({"lora_target_parameters": "norm.weight"}, "lora_target_parameters: 'norm.weight' is no matrix"),
    "layer": (SOME | {"peft_layers_to_transform": [1, 2]}, r"peft_layers_to_transform: .* layers 2\..*\n.*are 0, 1|are 1;"),
    "list of layers": (SOME | {"peft_layers_to_transform": [1], "peft_layers_pattern": ["h"]}, "cannot be added"),
    "repeated layer": (SOME | {"peft_layer_replication": [[0, 3]]}, r"peft_layer_replication: .*beyond the last.*\n.*0 to 1"),
    "token": (SOME | {"peft_trainable_token_indices": [259]}, r"no token 259.*\n.*0 to 258"),
    "tokens": (SOME | {"peft_trainable_token_indices": {"nothing": [1]}}, "peft_trainable_token_indices: .* no module 'nothing'"),
    "rows of what has none": (
        SOME | {"peft_trainable_token_indices": {"up_proj": [1]}},
        r"'up_proj' is model\.layers\.0\.mlp\.up_proj, which has no row for each token.*\n.*model\.embed_tokens",
    ),
    "rows and all of an end": (
        SOME | {"peft_trainable_token_indices": [40], "lora_modules_to_save": ["embed_tokens"]},
        r"peft_trainable_token_indices: lora_modules_to_save has model\.embed_tokens trained too",
    ),
    "rows of an end and LoRA of the other": (
        {"lora_target_modules": ["lm_head"], "peft_trainable_token_indices": [40]},
        "peft_trainable_token_indices: lora_target_modules has lm_head trained too, and both ends share one weight",
    ),
    "DoRA of tied ends": (
        {"lora_target_modules": ["embed_tokens", "lm_head"], "peft_ensure_weight_tying": True, "peft_use_dora": True},
        r"peft_use_dora: true, but peft_ensure_weight_tying adapts model\.embed_tokens and lm_head as one",
    ),
    "a module and its parameter": (
        SOME | {"lora_target_parameters": ["q_proj.weight"]},
        r"cannot be added.*\n.*\(down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj\)",
    ),
    "transposed": (SOME | {"lora_fan_in_fan_out": True}, r"lora_fan_in_fan_out: true.* weights as \[out, in\]"),
    "odd rank": (SOME | {"lora_r": 3, "peft_init_lora_weights": "orthogonal"}, "even"),
    "a tied end": ({"lora_target_modules": ["lm_head"], "peft_init_lora_weights": "pissa"}, "one weight for the embedding"),
    **{
        f"more of a weight than there is: {name}": (
            {"lora_target_modules": ["q_proj", "k_proj"], "lora_r": rank, "peft_init_lora_weights": name},
            rf"{name} with rank {rank} takes {taken} directions .* model\.layers\.0\.self_attn\.k_proj has 32.*\n.*lora_r: {most} ",
        )
        for name, rank, taken, most in (
            *((name, 33, 33, 32) for name in ("pissa", "pissa_niter_4", "olora", "corda", "loftq")),
            ("lora_ga", 17, 34, 16),
        )
    },
    "too little to look at": (
        SOME | {"lora_r": 64, "peft_init_lora_weights": "eva"},
        r"128 directions from 128 trained tokens.*\n.*lora_r",
    ),
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("case", REFUSED)
def test_what_chooses_nothing_is_refused(workspace: Path, case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(RegrowError, match=message):
        train(workspace, LORA | options)


def fill_gpt2(folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=259, n_embd=64, n_layer=1, n_head=4, n_positions=64)).save_pretrained(folder)


@pytest.mark.shows("lora_fan_in_fan_out")
def test_routers_that_look_linear_are_left_out(workspace: Path) -> None:
    """Those of Llama 4 and Phi-MoE give out more than their product, which PEFT's layers cannot."""
    sizes: dict[str, Any] = {
        "vocab_size": 259,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    experts: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2}
    model = Llama4ForCausalLM(Llama4TextConfig(**sizes, **experts, moe_layers=[1]))
    publish_artifact(workspace / "data", "base", model.save_pretrained)
    few = {"max_steps": 1, "adapter": "lora", "lora_r": 2}
    trained, _ = train(workspace, FULL | few | {"lora_target_linear": True})
    adapted = load_file(trained.path / "adapter_model.safetensors")
    assert any("down_proj" in name for name in adapted) and not any("router" in name for name in adapted)
    with pytest.raises(RegrowError, match=r"model\.layers\.1\.feed_forward\.router gives out which experts"):
        train(workspace, FULL | few | {"lora_target_modules": ["q_proj", "router"]})


def test_transposed_layers(workspace: Path) -> None:
    publish_artifact(workspace / "data", "base", fill_gpt2)
    options = {"lora_target_modules": ["c_attn"], "lora_fan_in_fan_out": True}
    assert Published(workspace, **options).config["fan_in_fan_out"] is True
    with pytest.raises(RegrowError, match=r"lora_fan_in_fan_out: false.* weights as \[in, out\]"):
        train(workspace, LORA | options | {"lora_fan_in_fan_out": False})
    with pytest.raises(RegrowError, match=r"c_attn stores its weight as \[in, out\] and lm_head as \[out, in\].*\n.*lora_modules_to_save"):
        train(workspace, LORA | {"lora_target_modules": ["c_attn", "lm_head"]})


def test_transposed_layers_are_linear_too(workspace: Path) -> None:
    publish_artifact(workspace / "data", "base", fill_gpt2)
    assert Published(workspace, **ALL, lora_target_modules=["c_attn"]).adapted() == {"c_attn", "c_proj", "c_fc"}


def test_olora_and_transposed_layers(workspace: Path) -> None:
    """What PEFT takes out of a square one is not what it puts into the adapter."""
    publish_artifact(workspace / "data", "base", fill_gpt2)
    with pytest.raises(RegrowError, match=r"olora, but transformer\.h\.0\.attn\.c_proj stores its weight transposed"):
        train(workspace, LORA | {"lora_target_modules": ["attn.c_proj"], "peft_init_lora_weights": "olora"})


@pytest.mark.shows("peft_autocast_adapter_dtype")
@pytest.mark.parametrize(("keeps", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_the_adapter_is_kept_in_fp32(published: Path, keeps: bool, dtype: torch.dtype) -> None:
    model = build_model(published / "data" / "base", view()).to(torch.bfloat16)
    adapted = add_adapter(model, view(adapter="lora", peft_autocast_adapter_dtype=keeps))
    assert {parameter.dtype for name, parameter in adapted.named_parameters() if "lora_" in name} == {dtype}


def product(a: Tensor, b: Tensor) -> Tensor:
    return b.double() @ a.double()


@pytest.mark.shows("peft_init_lora_weights")
@pytest.mark.parametrize("name", ["pissa", "pissa_niter_8", "olora", "corda", "lora_ga"])
def test_what_begins_inside_the_base_is_published_beside_it(workspace: Path, name: str) -> None:
    """Twice the rank; before any step the two halves cancel, and the second is what the method takes out of the weight."""
    found = Published(workspace, **SOME, peft_init_lora_weights=name, **STILL)
    a, b = found.factors()
    assert (len(a), found.config["r"], found.config["lora_alpha"], found.config["init_lora_weights"]) == (8, 8, 32, True)
    assert product(a, b).abs().max() < 1e-7
    taken, weight = -4 * product(a[4:], b[:, 4:]), found.base[f"{Q}.weight"].double()
    if name.startswith("pissa"):
        largest = torch.linalg.svdvals(weight)[:4]
        torch.testing.assert_close(torch.linalg.svdvals(taken)[:4], largest, atol=0, rtol=0.05 if "niter" in name else 1e-5)
        assert torch.linalg.norm(weight - taken) < torch.linalg.norm(weight)
    assert torch.linalg.matrix_rank(taken, rtol=1e-5) == 4
    if name == "olora":
        torch.testing.assert_close(b[:, :4].T @ b[:, :4], torch.eye(4), atol=1e-5, rtol=0)


def test_what_begins_beside_the_base(workspace: Path) -> None:
    starts = {name: Published(workspace, **SOME, peft_init_lora_weights=name, **STILL).factors() for name in BESIDE}
    for a, b in (starts[name] for name in (True, "gaussian", "eva")):
        assert len(a) == 4 and b.abs().max() < 1e-20 and a.std() > 0
    assert starts[False][1].std() > 0
    assert abs(starts["gaussian"][0].std() - 1 / 4) < 0.05
    torch.testing.assert_close(starts["eva"][0] @ starts["eva"][0].T, torch.eye(len(starts["eva"][0])), atol=1e-4, rtol=0)
    assert product(*starts["orthogonal"]).abs().max() < 1e-6 < starts["orthogonal"][1].abs().max()


BESIDE: tuple[Any, ...] = (True, False, "gaussian", "eva", "orthogonal")


def test_what_changes_the_base_wants_it_whole(published: Path) -> None:
    model = build_model(published / "data" / "base", view()).to(torch.bfloat16)
    with pytest.raises(RegrowError, match="peft_init_lora_weights: olora changes the base weights, which must be float32"):
        add_adapter(model, view(adapter="lora", peft_init_lora_weights="olora"))


RESUMED: dict[str, dict[str, Any]] = {
    "pissa": ALL | {"peft_init_lora_weights": "pissa"},
    "eva": ALL | {"peft_init_lora_weights": "eva"},
    "lora_ga": ALL | {"peft_init_lora_weights": "lora_ga"},
    "beside": SOME | {"lora_modules_to_save": ["embed_tokens", "lm_head"]},
    "token rows": SOME | {"peft_trainable_token_indices": [40, 41]},
    "repeated layers": ALL | {"peft_layer_replication": [[0, 2], [1, 2]]},
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("kind", RESUMED)
def test_a_stopped_run_ends_with_the_same_bytes(published: Path, workspace: Path, kind: str) -> None:
    options = LORA | RESUMED[kind] | {"max_steps": 3, "lora_dropout": 0.1}
    with pytest.raises(Interrupted):
        train(workspace, options, progress=SignalAt(2, signal.SIGTERM))
    assert train(workspace, options)[0].files == finished(published, options).files


@pytest.mark.shows("peft.loftq_config.loftq_bits")
def test_loftq_publishes_a_model_near_the_base(workspace: Path) -> None:
    distances = []
    for bits in (2, 4, 8):
        trained, metrics = train(workspace, LORA | SOME | STILL | {"peft": {"loftq_config": {"loftq_bits": bits}}})
        base, now = (load_file(folder / "model.safetensors") for folder in (workspace / "data" / "base", trained.path))
        assert metrics["kind"] == "full" and now["model.norm.weight"].equal(base["model.norm.weight"])
        distances.append(float((now[f"{Q}.weight"] - base[f"{Q}.weight"]).norm()))
    assert distances[0] > 3 * distances[1] > 9 * distances[2] > 0


def test_nf4_is_that_of_the_paper() -> None:
    """Appendix E of arXiv 2305.14314, to the digits that it prints."""
    values = [-1.0, -0.6961928, -0.5250730, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
    values += [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
    torch.testing.assert_close(normal_float_values(4), torch.tensor(values), atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), bits=st.integers(2, 8), rows=st.integers(1, 9), columns=st.integers(1, 90), rank=st.integers(1, 3))
def test_rounding_takes_the_nearest_value_and_loftq_comes_nearer(seed: int, bits: int, rows: int, columns: int, rank: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    rounded = round_to_normal_float(weight, bits)
    blocks = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1).repeat_interleave(BLOCK)[: weight.numel()].view_as(weight)
    nearest = ((weight / scale)[..., None] - normal_float_values(bits)).abs().amin(-1) * scale
    torch.testing.assert_close((rounded - weight).abs(), nearest, atol=1e-5, rtol=0)
    again, a, b = loftq(weight, bits, min(rank, rows, columns))
    assert again.equal(rounded) and (weight - rounded - b @ a).norm() <= (weight - rounded).norm() + 1e-6


@pytest.mark.shows("adapter")
def test_qlora_is_lora_over_few_bits(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model in few bits needs is asked of PEFT; the few bits themselves need a package."""
    prepared: list[Any] = []

    def prepare(model: Any, **keywords: Any) -> Any:
        prepared.append(keywords)
        return model

    monkeypatch.setattr("peft.prepare_model_for_kbit_training", prepare)
    model = build_model(workspace / "data" / "base", view())
    model.is_loaded_in_4bit = True
    add_adapter(model, view(adapter="qlora"))
    assert prepared == [{"use_gradient_checkpointing": False}]


@pytest.fixture
def earlier(workspace: Path, tmp_path: Path) -> Path:
    """An adapter of an earlier run, outside the project."""
    folder = Published(workspace, **ALL, lora_alpha=6).folder
    shutil.copytree(folder, tmp_path / "earlier")
    return tmp_path / "earlier"


@pytest.mark.shows("lora_model_dir")
def test_an_adapter_is_continued(workspace: Path, earlier: Path) -> None:
    before = load_file(earlier / "adapter_model.safetensors")
    still = Published(workspace, lora_model_dir=str(earlier), **STILL)
    now = load_file(still.folder / "adapter_model.safetensors")
    assert now.keys() == before.keys() and all(torch.allclose(now[name], before[name], atol=1e-20) for name in before)
    assert still.config == json.loads((earlier / "adapter_config.json").read_text()) and still.config["lora_alpha"] == 6
    further = Published(workspace, lora_model_dir=str(earlier), **ALL)
    assert not torch.equal(further.factors()[1], before[f"{PREFIX}{Q}.lora_B.weight"])


@pytest.mark.shows("lora_on_cpu")
def test_an_adapter_is_loaded_on_the_cpu(workspace: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    asked: list[Any] = []
    load = peft.PeftModel.from_pretrained

    def watched(*arguments: Any, **keywords: Any) -> Any:
        asked.append(keywords.get("torch_device"))
        return load(*arguments, **keywords)

    monkeypatch.setattr(peft.PeftModel, "from_pretrained", watched)
    for on_cpu in (True, False):
        build_model(workspace / "data" / "base", view(adapter="lora", lora_model_dir=str(earlier), lora_on_cpu=on_cpu))
    assert asked == ["cpu", None]


def test_an_adapter_of_another_model(workspace: Path, earlier: Path) -> None:
    path = earlier / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": ["q_proj"]}))
    with pytest.raises(RegrowError, match=r"lora_model_dir: .* disagree about .*down_proj"):
        train(workspace, LORA | {"lora_model_dir": str(earlier)})
    (earlier / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(RegrowError, match=r"lora_model_dir: .* does not fit base_model"):
        train(workspace, LORA | {"lora_model_dir": str(earlier)})
