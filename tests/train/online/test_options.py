"""What each option of GRPO changes in a run of a few steps, or what it is refused with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from pipeline.artifact import Artifact
from pipeline.errors import MissingExtra, RegrowError
from pipeline.lineage.opened import open_lineage
from pipeline.options.views import TrainOptions
from stages.train.online.settings import grpo_settings
from tests.tiny import save_tokenizer
from tests.train.online.workspace import REWARDS, build, completions, grpo
from tests.train.workspace import Heard, finished, read_log, train


@pytest.fixture
def usual(prompts: Path) -> list[dict[str, float]]:
    """log.csv of the run that the others are compared with."""
    return finished(prompts, grpo()).log


def run(workspace: Path, trl: dict[str, Any] | None = None, **options: Any) -> Artifact:
    return train(workspace, grpo(trl=trl, **options))[0]


def texts(trained: Artifact) -> list[str]:
    """The answers that were kept."""
    return [line["completion"] for line in completions(trained.path)]


def said(options: dict[str, Any]) -> dict[str, Any]:
    """What TRL is told."""
    return grpo_settings(TrainOptions.model_validate({"learning_rate": 1e-2} | options))


@pytest.mark.shows("rl", "trl.reward_funcs")
def test_rewards_rise(asking: Path) -> None:
    log = read_log(run(asking, max_steps=12))
    assert log[-1]["reward"] > log[0]["reward"] + 0.2
    assert log[0]["reward"] == log[0]["rewards/digits"] and log[0]["reward_std"] > 0


@pytest.mark.shows("trl.num_generations")
def test_so_many_answers_to_a_prompt(asking: Path) -> None:
    kept = completions(run(asking, {"num_generations": 8}, max_steps=1).path)
    assert len(kept) == 8 and len({line["prompt"] for line in kept}) == 1


def test_a_step_without_whole_groups_is_refused_with_what_works(asking: Path) -> None:
    with pytest.raises(RegrowError, match=r"A step takes 8 answers.*trl\.num_generations: 3 answers") as caught:
        run(asking, {"num_generations": 3})
    assert caught.value.remedy == "Make it 6 or 9 answers, or set trl.num_generations to 2 or 4 or 8."
    with pytest.raises(RegrowError, match="There are 16 prompts, and a step takes 20"):
        run(asking, {"num_generations": 2}, micro_batch_size=40, gradient_accumulation_steps=1)


@pytest.mark.shows("trl.max_completion_length", "trl.mask_truncated_completions")
def test_answers_end_and_may_be_left_out_where_they_do_not(asking: Path) -> None:
    short = read_log(run(asking, {"max_completion_length": 3}))
    assert [line["completion_length"] for line in short] == [3, 3, 3] and short[0]["cut_off"] == 1
    masked = read_log(run(asking, {"mask_truncated_completions": True}))
    assert [(line["loss"], line["trained_tokens"]) for line in masked] == [(0, 0)] * 3


@pytest.mark.shows("trl.reward_weights")
def test_rewards_are_weighted(asking: Path) -> None:
    both = [f"{REWARDS}.digits", f"{REWARDS}.length"]
    log = read_log(run(asking, {"reward_funcs": both, "reward_weights": [1.0, 0.25]}, max_steps=1))
    assert log[0]["reward"] == pytest.approx(log[0]["rewards/digits"] + 0.25 * log[0]["rewards/length"], rel=1e-5)


@pytest.mark.shows("trl.beta", "rl_beta")
def test_the_reference_holds_the_model(asking: Path, usual: list[dict[str, float]]) -> None:
    assert "kl" not in usual[0]
    held = read_log(run(asking, {"beta": 0.5}))
    assert held[0]["kl"] == 0 < held[2]["kl"] and held[1]["loss"] != usual[1]["loss"]
    assert read_log(run(asking, rl_beta=0.5)) == held


@pytest.mark.shows("trl.sync_ref_model", "trl.ref_model_mixup_alpha", "trl.ref_model_sync_steps")
def test_the_reference_follows(asking: Path) -> None:
    def divergence(**trl: Any) -> list[float]:
        return [line["kl"] for line in read_log(run(asking, {"beta": 0.1, **trl}))]

    stays, follows = divergence(), divergence(sync_ref_model=True, ref_model_mixup_alpha=1.0, ref_model_sync_steps=1)
    assert follows == [0, 0, 0] != stays
    partly = divergence(sync_ref_model=True, ref_model_mixup_alpha=0.5, ref_model_sync_steps=1)
    later = divergence(sync_ref_model=True, ref_model_mixup_alpha=1.0, ref_model_sync_steps=2)
    assert 0 < partly[1] < stays[1] and later == [0, stays[1], 0]


@pytest.mark.shows("trl.temperature", "trl.top_p", "trl.top_k", "trl.min_p", "trl.repetition_penalty")
def test_how_answers_are_drawn(asking: Path) -> None:
    plain = texts(run(asking, max_steps=1))
    for one_answer in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4}):
        assert len(set(texts(run(asking, one_answer, max_steps=1)))) == 1 < len(set(plain))
    assert texts(run(asking, {"top_k": -1}, max_steps=1)) == plain
    greedy = {"top_k": 1, "max_completion_length": 40}
    often, once = (texts(run(asking, greedy | {"repetition_penalty": penalty}, max_steps=1))[0] for penalty in (1.0, 1000.0))
    assert len(set(often)) < len(set(once))


@pytest.mark.shows("trl.num_iterations")
def test_answers_are_learned_from_more_than_once(asking: Path) -> None:
    trained = run(asking, {"num_iterations": 2}, max_steps=4)
    log = read_log(trained)
    assert [line["reward"] for line in log[:2]] == [log[0]["reward"]] * 2 and log[2]["reward"] != log[0]["reward"]
    assert sorted({line["step"] for line in completions(trained.path)}) == [1, 3]
    assert log[1]["tokens"] == 2 * log[0]["tokens"] and abs(log[1]["loss"]) > 1e-3 > abs(log[0]["loss"])
    assert trained.content["order"]["updates"] == 2 and trained.content["order"]["steps_per_epoch"] == 16
    order = open_lineage(asking / "data").order
    first, second, third = (order.bins_of(step).tolist() for step in (1, 2, 3))
    assert first == second != third and list(order.steps_of(first[0])) == [(0, 1), (0, 2)]


@pytest.mark.shows("trl.epsilon", "trl.epsilon_high")
def test_ratios_are_clipped(asking: Path) -> None:
    """Of a clipped and a whole ratio the worse one counts: the tighter the clipping, the larger the loss of a second update."""

    def second(**trl: float) -> float:
        return read_log(run(asking, {"num_iterations": 2, **trl}, max_steps=2, learning_rate=0.1))[1]["loss"]

    assert second(epsilon=1e-6) > second(epsilon=1e-6, epsilon_high=10.0) > second(epsilon=10.0)


@pytest.mark.shows("trl.importance_sampling_level")
def test_ratios_of_whole_answers(asking: Path) -> None:
    tokens, answers = (
        read_log(run(asking, {"num_iterations": 2, "loss_type": "grpo", "importance_sampling_level": level}, max_steps=2))
        for level in ("token", "sequence")
    )
    assert tokens[0]["grad_norm"] == answers[0]["grad_norm"] and tokens[1]["grad_norm"] != answers[1]["grad_norm"]


@pytest.mark.shows("trl.scale_rewards")
def test_rewards_are_scaled(asking: Path) -> None:
    scores = {scale: completions(run(asking, {"scale_rewards": scale}, max_steps=1).path) for scale in (True, "group", "batch", False)}
    assert scores[True] == scores["group"]
    for line in scores[False]:
        mean = sum(other["rewards"]["digits"] for other in scores[False]) / 4
        assert line["advantage"] == pytest.approx(line["rewards"]["digits"] - mean, abs=1e-5)
    spread = {scale: max(abs(line["advantage"]) for line in lines) for scale, lines in scores.items()}
    assert len(set(spread.values())) == 3 and spread[False] < spread["batch"]


def test_gdpo_scales_each_reward_by_itself(asking: Path) -> None:
    both = {"reward_funcs": [f"{REWARDS}.digits", f"{REWARDS}.length"]}
    grouped, apart = (completions(run(asking, both, rl=rl, max_steps=1).path) for rl in ("grpo", "gdpo"))
    assert [line["completion"] for line in grouped] == [line["completion"] for line in apart]
    assert [line["advantage"] for line in grouped] != [line["advantage"] for line in apart]


@pytest.mark.shows("trl.loss_type")
def test_kinds_of_losses(asking: Path) -> None:
    """With answers of one length, what differs is by how much a step moves; each is checked against a computation in test_losses."""
    found = {}
    for kind in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"):
        level = "sequence" if kind == "luspo" else "token"
        trl = {"loss_type": kind, "num_iterations": 2, "importance_sampling_level": level, "epsilon_high": 5.0}
        found[kind] = read_log(run(asking, trl, max_steps=2))[1]["loss"]
    assert len({round(loss, 6) for loss in found.values()}) >= 5, found


@pytest.mark.shows("trl.log_completions", "trl.num_completions_to_print")
def test_answers_are_shown(prompts: Path, asking: Path) -> None:
    heard = Heard()
    shown, _ = train(asking, grpo(trl={"log_completions": True, "num_completions_to_print": 2}), progress=heard)
    lines = [line for line in heard.said if line.startswith("step ")]
    assert len(lines) == 6 and lines[0].startswith("step 1, digits 0.5: '")
    assert shown.files == finished(prompts, grpo()).files


@pytest.mark.shows("trl.rollout_func")
def test_answers_of_a_function_of_ones_own(asking: Path) -> None:
    trained = run(asking, {"rollout_func": f"{REWARDS}.recite", "num_iterations": 2}, max_steps=1)
    assert texts(trained) == ["ABCD", "ABCD", "abcd", "abcd"]


def test_answers_are_kept_at_a_few_steps(asking: Path) -> None:
    kept = completions(run(asking, max_steps=40).path)
    steps = sorted({line["step"] for line in kept})
    assert len(steps) == 16 and (steps[0], steps[-1]) == (1, 40) and len(kept) == 64


def test_a_reward_model(asking: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    shape: dict[str, Any] = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(**shape, num_attention_heads=2, num_labels=1, pad_token_id=0)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    save_tokenizer(tmp_path / "judge")
    functions = {"reward_funcs": [str(tmp_path / "judge"), f"{REWARDS}.digits"]}
    log = read_log(run(asking, functions))
    alone = {"reward_funcs": [str(tmp_path / "judge")]}
    assert log[0]["rewards/judge"] != log[1]["rewards/judge"]
    assert log[0]["reward"] == pytest.approx(log[0]["rewards/judge"] + log[0]["rewards/digits"], rel=1e-4)
    assert "rewards/judge" in read_log(run(build(tmp_path / "talk", messages=True), alone, max_steps=1))[0]
    (tmp_path / "judge" / "config.json").unlink()
    with pytest.raises(RegrowError, match="judge cannot be opened as a reward model"):
        run(asking, functions)


def test_functions_that_wait(asking: Path, usual: list[dict[str, float]]) -> None:
    log = read_log(run(asking, {"reward_funcs": [f"{REWARDS}.waits"]}))
    assert [line["reward"] for line in log] == [line["reward"] for line in usual]


@pytest.mark.parametrize(("name", "why"), [
    ("nothing", "takes 1 arguments, and is given prompts, completions and more"),
    ("breaks", r"breaks raises KeyError: 'answer'"),
    ("few", "returns 1 scores for 8 answers"),
    ("missing", "cannot be imported: AttributeError"),
    ("NUMBER", "is no function"),
])  # fmt: skip
def test_functions_that_cannot_score(asking: Path, name: str, why: str) -> None:
    with pytest.raises(RegrowError, match=why):
        run(asking, {"reward_funcs": [f"{REWARDS}.{name}"]})


def test_columns_reach_functions(asking: Path, tmp_path: Path) -> None:
    """`length` asserts that there is an answer to each; messages come as messages."""
    assert read_log(run(asking, {"reward_funcs": [f"{REWARDS}.length"]}))[0]["reward"] > 0
    trained = run(build(tmp_path, messages=True), max_steps=1, trl={"reward_funcs": [f"{REWARDS}.of_messages"]})
    first = completions(trained.path)[0]
    assert first["prompt"][0]["role"] == "user" and isinstance(first["completion"], str)


@pytest.mark.shows("eval_steps", "metric_for_best_model", "load_best_model_at_end")
def test_held_out_prompts_are_answered(answered: Path) -> None:
    options = grpo(max_steps=4, eval_steps=2, save_steps=2, load_best_model_at_end=True, metric_for_best_model="reward")
    trained, metrics = train(answered, options)
    measured = read_log(trained, "eval.csv")
    assert [line["step"] for line in measured] == [0, 2, 4] and metrics["evaluations"] == 3
    best = max(line["eval_reward"] for line in measured[1:])
    assert metrics["eval_reward"] == pytest.approx(best, abs=1e-5) and metrics["best_step"] in (2, 4)
    assert measured[0]["eval_rewards/digits"] == measured[0]["eval_reward"] and measured[0]["eval_completion_length"] == 6


VLLM: dict[str, Any] = {"rl": "grpo", "vllm": {"max_model_len": 99, "tensor_parallel_size": 2, "host": "here", "port": 9}}


@pytest.mark.shows("trl.vllm_mode", "trl.vllm_server_host", "trl.vllm_server_port", "trl.vllm_server_timeout")
@pytest.mark.shows("trl.vllm_guided_decoding_regex", "trl.vllm_enable_sleep_mode", "vllm.gpu_memory_utilization")
@pytest.mark.shows("vllm.max_model_len", "vllm.tensor_parallel_size", "vllm.host", "vllm.port")
def test_what_vllm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.train.online.settings.require_vllm", lambda *_: None)
    beside = said(VLLM | {"trl": {"use_vllm": True, "vllm_enable_sleep_mode": True, "vllm_guided_decoding_regex": "[0-9]+"}})
    expected = {"vllm_mode": "colocate", "vllm_structured_outputs_regex": "[0-9]+", "vllm_enable_sleep_mode": True}
    expected |= {"vllm_gpu_memory_utilization": 0.3, "vllm_tensor_parallel_size": 2, "vllm_max_model_length": 99}
    assert {name: beside[name] for name in expected} == expected
    assert said({"trl": {"use_vllm": True}, "vllm": {"gpu_memory_utilization": 0.7}})["vllm_gpu_memory_utilization"] == 0.7
    server = {"use_vllm": True, "vllm_mode": "server", "vllm_server_timeout": 7}
    found = said(VLLM | {"trl": server})
    assert (found["vllm_server_host"], found["vllm_server_port"], found["vllm_server_timeout"]) == ("here", 9, 7.0)
    assert said(VLLM | {"trl": server | {"vllm_server_host": "there", "vllm_server_port": 8}})["vllm_server_host"] == "there"
    assert "vllm_tensor_parallel_size" not in found and not [name for name in said(VLLM) if "vllm" in name]


@pytest.mark.shows("vllm.device", "vllm.data_parallel_size", "vllm.dtype", "vllm.enable_prefix_caching", "vllm.enable_reasoning")
@pytest.mark.shows("trl.use_vllm", "trl.use_liger_kernel", "vllm.reasoning_parser")
def test_what_needs_a_gpu_is_refused_without(asking: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of vllm that only a server has are shown with its command, in tests/pipeline/test_vllm_server.py."""
    for key in ("use_vllm", "use_liger_kernel"):
        with pytest.raises(RegrowError, match=f"trl.{key}: true needs a CUDA GPU, and this machine has none"):
            run(asking, {key: True}, vllm={"device": "auto", "data_parallel_size": 2, "dtype": "bfloat16"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for key, package in (("use_vllm", "vllm"), ("use_liger_kernel", "liger-kernel")):
        with pytest.raises(MissingExtra, match=package):
            said({"trl": {key: True}})


def test_completions_are_plain_json(prompts: Path, asking: Path) -> None:
    lines = (run(asking, max_steps=1).path / "completions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [sorted(json.loads(line)) for line in lines] == [["advantage", "completion", "prompt", "rewards", "step"]] * 4
