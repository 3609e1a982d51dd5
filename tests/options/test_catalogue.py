"""Every option of the reference is known, with one status and its readers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from pipeline.options.catalogue import CONFIGURE, Option, catalogue, count_by_status
from pipeline.options.reading.wording import members
from pipeline.options.views import VIEWS

PLACES = {
    "-": "{}",
    "TRLConfig": "trl.{}",
    "VllmConfig": "vllm.{}",
    "QATConfig": "qat.{}",
    "PTQConfig": "quantization.{}",
    "DynamicCheckpointConfig": "dynamic_checkpoint.{}",
    "SFTDataset": "datasets.{}",
    "DPODataset": "datasets.{}",
    "KTODataset": "datasets.{}",
    "StepwiseSupervisedDataset": "datasets.{}",
    "PretrainingDataset": "pretraining_dataset.{}",
    "UserDefinedPrompterType": "datasets.type.{}",
    "UserDefinedDPOType": "datasets.type.{}",
    "UserDefinedKTOType": "datasets.type.{}",
    "FSDPConfig": "fsdp_config.{}",
    "SpecialTokensConfig": "special_tokens.{}",
    "PeftConfig": "peft.{}",
    "LoftQConfig": "peft.loftq_config.{}",
    "LrGroup": "lr_groups.{}",
}

NEWER = (
    *("datasets.train_on_eot", "pad_to_multiple_of", "dpo_loss_type", "dpo_loss_weights", "precompute_ref_log_probs", "lora_rank_pattern"),
    *("lora_alpha_pattern", "torch_empty_cache_steps", "gc_collect_steps", "datasets.weight", "hub_revision", "lora_exclude_modules"),
)


def reference_pairs() -> list[tuple[str, str]]:
    lines = (Path(__file__).parent / "reference_names.tsv").read_text(encoding="utf-8").splitlines()
    return [(owner, name) for owner, _, name in (line.partition("\t") for line in lines)]


def test_all_pairs_of_the_reference_have_a_status_and_a_reader(capsys: pytest.CaptureFixture[str]) -> None:
    pairs, options = reference_pairs(), catalogue()
    assert len(pairs) == 502
    found = [options[PLACES[owner].format(name)] for owner, name in pairs]
    assert all(option.readers and set(option.readers) <= {*VIEWS, CONFIGURE} for option in found)
    counts = Counter("not yet" if option.facts.not_yet else option.facts.status for option in found)
    with capsys.disabled():
        print(f"\n502 pairs of the reference: {dict(counts)}; {len(options)} options: {count_by_status()}")


def test_newer_keys_are_known() -> None:
    assert all(catalogue()[place].facts.newer for place in NEWER)


@pytest.mark.parametrize("option", catalogue().values(), ids=catalogue().keys())
def test_each_option_is_told(option: Option) -> None:
    facts = option.facts
    assert option.field.description and option.field.description.endswith((".", ")")), "one sentence"
    assert option.type
    assert (facts.status == "works") <= (not facts.note and not facts.instead)
    assert (facts.status in ("renamed", "needs")) <= bool(facts.note), "says what, or to which key"
    assert (facts.status == "refused" and not facts.not_yet) <= bool(facts.note), "says why"
    choices = [choice for item in members(option.field.annotation) for choice in get_args(item)]
    assert not set(facts.later) & set(map(str, choices)), "a value works or does not"


def test_readers_of_a_view_are_its_groups() -> None:
    options = catalogue()
    assert options["datasets.path"].readers == ("fetch",)
    assert options["datasets.roles"].readers == ("tokenize",)
    assert options["datasets"].readers == ("fetch", "tokenize")
    assert options["datasets.type.field_prompt"].readers == ("tokenize",)
    assert options["unsloth_rope"].readers == (CONFIGURE,)
