"""How the base model is opened: its class, how many bits, on which devices, and rows of tokens it never saw."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM

from pipeline.errors import MissingExtra, RegrowError
from pipeline.models import load_causal_lm
from pipeline.options.views import TrainOptions
from stages.train import packages
from stages.train.model import few_bits, loading
from stages.train.model.build import build_model
from tests.tiny import publish_artifact
from tests.train.test_adapters import fill_gpt2
from tests.train.workspace import LORA, Heard, finished, read_log, train

QLORA = LORA | {"adapter": "qlora", "lora_dropout": 0.0, "load_in_4bit": True}
needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="the extra bitsandbytes is not installed")


def view(**options: Any) -> TrainOptions:
    return TrainOptions.model_validate({"learning_rate": 1e-3} | options)


def kinds(model: Any) -> set[str]:
    return {type(module).__name__ for module in model.modules()}


@pytest.mark.shows("load_in_4bit", "load_in_8bit")
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_few_bits_need_their_library(monkeypatch: pytest.MonkeyPatch, published: Path, bits: str) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=rf"load_in_{bits}: true needs the package 'bitsandbytes'.*\n.*regrow\[bitsandbytes\]"):
        build_model(published / "data" / "base", view(**{f"load_in_{bits}": True}, adapter="lora"))


def test_few_bits_are_those_of_one_version(monkeypatch: pytest.MonkeyPatch, published: Path) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: name)
    monkeypatch.setattr(packages, "version", lambda name: "0.49.0")
    with pytest.raises(RegrowError, match=r"load_in_4bit: true: bitsandbytes is 0\.49\.0 here; results are those of "):
        build_model(published / "data" / "base", view(**QLORA))


@needs_bitsandbytes
@pytest.mark.filterwarnings("error:.*autograd kernel was not registered")
@pytest.mark.parametrize(("bits", "kind"), [("4bit", "Linear4bit"), ("8bit", "Linear8bitLt")])
def test_an_adapter_over_few_bits(published: Path, workspace: Path, bits: str, kind: str) -> None:
    """It learns nearly what it learns over all bits, the same each time, also after the checks that look at the model first."""
    options = {**QLORA, "load_in_4bit": bits == "4bit", "load_in_8bit": bits == "8bit", "adapter": "qlora" if bits == "4bit" else "lora"}
    model = build_model(published / "data" / "base", view(**options))
    assert kind in kinds(model) and not any(module.weight.requires_grad for module in model.modules() if type(module).__name__ == kind)
    first, _ = train(workspace, options, progress=Heard())
    again, _ = train(workspace, options, progress=Heard())
    assert first.files == again.files
    plain = {key: value for key, value in LORA.items() if key != "lora_dropout"}
    expected = [line["loss"] for line in finished(published, plain).log]
    found = [line["loss"] for line in read_log(first)]
    assert found == pytest.approx(expected, rel=5e-3) and found != expected
    assert "quantization" not in (first.path / "adapter_config.json").read_text()


@needs_bitsandbytes
@pytest.mark.parametrize(("options", "wrong"), [
    ({"lora_modules_to_save": ["mlp"]}, r"mlp cannot be trained whole, as model.* is held.*\n.*\[down_proj, gate_proj, up_proj, lm_head\]"),
    ({"bnb_config_kwargs": {"llm_int8_skip_modules": ["q_proj"]}}, r"leaves out lm_head, which shares.*\n.*Add lm_head"),
    ({"bnb_config_kwargs": {"bnb_4bit_quant_type": "nf5"}}, r"bnb_4bit_quant_type: 'nf5'.*\n.*nf4 or fp4"),
    (
        {"adapter": "lora", "load_in_4bit": False, "load_in_8bit": True, "peft_use_dora": True},
        r"peft_use_dora: true over load_in_8bit: true needs a CUDA device.*\n.*load_in_4bit: true",
    ),
])  # fmt: skip
def test_what_few_bits_cannot_do(published: Path, options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(RegrowError, match=wrong):
        build_model(published / "data" / "base", view(**(QLORA | options)))


@needs_bitsandbytes
def test_an_adapter_over_few_bits_of_transposed_layers_lies_on_the_base_as_it_came(workspace: Path) -> None:
    """bitsandbytes turns them round, the base stays as it is."""
    publish_artifact(workspace / "data", "base", fill_gpt2)
    trained, _ = train(workspace, QLORA | {"max_steps": 1, "lora_fan_in_fan_out": True}, progress=Heard())
    assert json.loads((trained.path / "adapter_config.json").read_text())["fan_in_fan_out"] is True


@needs_bitsandbytes
def test_outliers_of_one_row_are_no_leak(workspace: Path) -> None:
    """Where a column counts as an outlier because of one row, it is computed otherwise in all: the check must not mind."""
    options = {**QLORA, "load_in_4bit": False, "load_in_8bit": True, "adapter": "lora", "bnb_config_kwargs": {"llm_int8_threshold": 1.5}}
    model = build_model(workspace / "data" / "base", view(**options)).eval()
    ids, row = torch.arange(3, 27)[None], torch.arange(12)

    @torch.no_grad()
    def change_behind_another() -> float:
        both = model(input_ids=ids, position_ids=torch.cat([row, row])[None], use_cache=False).logits[0, 12:]
        alone = model(input_ids=ids[:, 12:], position_ids=row[None], use_cache=False).logits[0]
        return float((both - alone).abs().max())

    assert change_behind_another() > 0
    with few_bits.each_row_alone(model):
        assert change_behind_another() == 0
    assert change_behind_another() > 0
    train(workspace, options | {"max_steps": 1}, progress=Heard())


@needs_bitsandbytes
def test_4_bits_have_gradients_after_an_evaluation_too(published: Path) -> None:
    """bitsandbytes repacks weights for evaluation on a CPU with bfloat16 instructions, and multiplies them without gradients then."""
    model, ids = build_model(published / "data" / "base", view(**QLORA)), torch.arange(3, 20)[None]
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model.train()(input_ids=ids, labels=ids).loss.backward()
        gradients.append([weight.grad.clone() for weight in model.parameters() if weight.requires_grad])
        with torch.no_grad():
            model.eval()(input_ids=ids)
    assert all(torch.equal(before, after) for before, after in zip(*gradients, strict=True))
    assert any(gradient.abs().max() > 0 for gradient in gradients[1])


@pytest.mark.shows("bnb_config_kwargs")
def test_settings_of_few_bits(monkeypatch: pytest.MonkeyPatch, published: Path) -> None:
    asked: dict[str, Any] = {}

    def load(folder: Path, **settings: Any) -> None:
        asked.update(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(few_bits, "require", lambda needed_for, package: None)
    monkeypatch.setattr(loading, "load_causal_lm", load)

    def settings(**options: Any) -> Any:
        with pytest.raises(KeyboardInterrupt):
            loading.load_base(published / "data" / "base", view(adapter="lora", **options))
        return asked["quantization_config"]

    plain = settings(load_in_4bit=True)
    assert (plain.bnb_4bit_quant_type, plain.bnb_4bit_use_double_quant, plain.bnb_4bit_compute_dtype) == ("nf4", True, torch.float32)
    assert settings(load_in_4bit=True, bf16=True).bnb_4bit_compute_dtype is torch.bfloat16
    assert settings(load_in_4bit=True, bnb_config_kwargs={"bnb_4bit_quant_type": "fp4"}).bnb_4bit_quant_type == "fp4"
    assert settings(load_in_8bit=True, bnb_config_kwargs={"llm_int8_threshold": 5.0}).llm_int8_threshold == 5.0
    for given, message in (({"bnb_4bit_quant_typ": "fp4"}, "did you mean 'bnb_4bit_quant_type'"), ({"llm_int8_threshold": "x"}, "float")):
        with pytest.raises(RegrowError, match=message):
            loading.load_base(published / "data" / "base", view(adapter="lora", load_in_4bit=True, bnb_config_kwargs=given))


@pytest.mark.shows("type_of_model")
def test_the_class_is_the_one_of_its_type(published: Path) -> None:
    base = published / "data" / "base"
    for name in ("LlamaForCausalLM", "AutoModelForCausalLM"):
        assert type(build_model(base, view(type_of_model=name))).__name__ == "LlamaForCausalLM"
    for name in ("MistralForCausalLM", "LlamaForSequenceClassification", "NoSuchModel"):
        with pytest.raises(RegrowError, match=rf"type_of_model: {name}, but .* type llama is LlamaForCausalLM"):
            build_model(base, view(type_of_model=name))


@pytest.mark.shows("overrides_of_model_kwargs")
@pytest.mark.parametrize(("key", "judged"), [("reward_model", "texts"), ("process_reward_model", "tokens")])
def test_a_type_without_judges_is_named(tmp_path: Path, key: str, judged: str) -> None:
    shape = dict.fromkeys(("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads"), 2)
    GraniteForCausalLM(GraniteConfig(**shape, vocab_size=9, pad_token_id=0, bos_token_id=1, eos_token_id=2)).save_pretrained(tmp_path)
    with pytest.raises(RegrowError, match=f"^{key}: true, and transformers has no class for models of type granite that judge {judged}"):
        build_model(tmp_path, view(**{key: True}))


def test_keywords_are_passed_on(tmp_path: Path, published: Path) -> None:
    """How experts are computed, which a model without any is not to be told."""
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_local_experts": 2}
    MixtralForCausalLM(MixtralConfig(vocab_size=99, num_attention_heads=4, num_key_value_heads=2, **sizes)).save_pretrained(tmp_path)
    logits = []
    for name in ("eager", "batched_mm"):
        model = build_model(tmp_path, view(overrides_of_model_kwargs={"experts_implementation": name}))
        assert model.config._experts_implementation == name
        logits.append(model(input_ids=torch.arange(9)[None]).logits)
    torch.testing.assert_close(logits[0], logits[1])
    with pytest.raises(RegrowError, match="is about experts, and LlamaForCausalLM has none"):
        build_model(published / "data" / "base", view(overrides_of_model_kwargs={"experts_implementation": "eager"}))


@pytest.mark.shows("device_map", "max_memory", "gpu_memory_limit")
@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ({"device_map": "balanced"}, {"device_map": "balanced"}),
        ({"device_map": {"": 1}}, {"device_map": {"": 1}}),
        ({"max_memory": {0: "9GiB", "cpu": "1GiB"}}, {"device_map": "auto", "max_memory": {0: "9GiB", "cpu": "1GiB"}}),
        ({"gpu_memory_limit": 20}, {"device_map": "auto", "max_memory": {0: "20GiB", 1: "20GiB"}}),
        ({"device_map": "balanced", "gpu_memory_limit": "500MiB"}, {"device_map": "balanced", "max_memory": {0: "500MiB", 1: "500MiB"}}),
    ],
)
def test_where_weights_go(monkeypatch: pytest.MonkeyPatch, published: Path, options: dict[str, Any], passed: dict[str, Any]) -> None:
    base, asked, real = published / "data" / "base", {}, load_causal_lm
    with pytest.raises(RegrowError, match=f"{next(iter(options))} needs a CUDA device"):
        build_model(base, view(**options))

    def load(folder: Path, *, dtype: Any, attn_implementation: Any, **settings: Any) -> Any:
        asked.update(settings)
        model = real(folder, dtype=dtype, attn_implementation=attn_implementation)
        model.hf_device_map = {"model": 0, "lm_head": "cpu"} if full else {"": 0}
        return model

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(loading, "load_causal_lm", load)
    full = False
    build_model(base, view(**options))
    assert asked == passed
    full = True
    with pytest.raises(RegrowError, match=r"leaves 1 parts of the model \(lm_head\) without a GPU"):
        build_model(base, view(**options))


@pytest.mark.shows("fix_untrained_tokens")
@pytest.mark.parametrize(("asked", "rows"), [(True, [0]), ([7, 9], [7, 9]), (5, [5]), (0, [0]), (None, []), (False, []), ([], [])])
def test_rows_that_were_never_trained(published: Path, asked: Any, rows: list[int]) -> None:
    """Row 0 is padding's: all zeros."""
    base = published / "data" / "base"
    before = build_model(base, view()).get_input_embeddings().weight
    after = build_model(base, view(fix_untrained_tokens=asked)).get_input_embeddings().weight
    assert (before != after).any(dim=1).nonzero().flatten().tolist() == rows
    others = torch.ones(len(before), dtype=torch.bool)
    others[rows] = False
    for row in rows:
        torch.testing.assert_close(after[row], before[others].mean(dim=0))


def test_rows_that_cannot_be_mended(published: Path) -> None:
    base = published / "data" / "base"
    with pytest.raises(RegrowError, match=r"fix_untrained_tokens: 259 is no token id.*\n.*rows 0 to 258"):
        build_model(base, view(fix_untrained_tokens=259))
    with pytest.raises(RegrowError, match="not saved with an adapter"):
        build_model(base, view(fix_untrained_tokens=True, adapter="lora"))


def test_an_untied_head_is_mended_too(tmp_path: Path) -> None:
    from tests.tiny import save_model

    save_model(tmp_path, tie_word_embeddings=False)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is False
    model = build_model(tmp_path, view(fix_untrained_tokens=[4]))
    for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        torch.testing.assert_close(weight[4], torch.cat([weight[:4], weight[5:]]).mean(dim=0))
