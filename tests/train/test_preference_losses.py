"""Every loss equals one that is computed anew from the log-probabilities, at the first step and on held-out rows after training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from pipeline.tokens import TokenTable
from tests.train.preferences import FULL, HELD_OUT, ROWS, build, feedback_rows, pair_rows, step_rows
from tests.train.workspace import read_log, train

BETA = 0.5
Sums = tuple[float, float]
Ratios = tuple[float, float, int, int]
"""Of the better and the worse answer: log-probability under the model less that under the reference; then their tokens."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("pairs"), pair_rows())


@pytest.fixture(scope="module")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("feedback"), feedback_rows())


def log_probs(model: Any, ids: np.ndarray) -> torch.Tensor:
    """Of every token but the first, float64 ``[tokens - 1]``: one row, no padding, no mask."""
    tokens = torch.from_numpy(ids.astype(np.int64))[None]
    with torch.no_grad():
        scores = model(input_ids=tokens, use_cache=False).logits[0, :-1].double().log_softmax(-1)
    return torch.as_tensor(scores.gather(1, tokens[0, 1:, None])[:, 0])


def answer_log_probs(model: Any, ids: np.ndarray, mask: np.ndarray) -> torch.Tensor:
    """Those of the answer's tokens."""
    return log_probs(model, ids)[torch.from_numpy(mask[1:] != 0)]


def opened(folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval()


def ratios(model: Any, reference: Any, table: TokenTable, row: int) -> Ratios:
    found, lengths = [], []
    for ids, mask in ((table.ids(row), table.mask(row)), (table.rejected_ids(row), table.rejected_mask(row))):
        own, other = answer_log_probs(model, ids, mask), answer_log_probs(reference, ids, mask)
        found.append(float(own.sum() - other.sum()))
        lengths.append(len(own))
    return found[0], found[1], lengths[0], lengths[1]


def sig(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def minus_log_sig(value: float) -> float:
    return float(softplus(torch.tensor(-value, dtype=torch.float64)))


EPSILON = 0.1
LOSSES: dict[str, Callable[[float, float, int, int], float]] = {
    "sigmoid": lambda w, v, *_: minus_log_sig(BETA * (w - v)),
    "hinge": lambda w, v, *_: max(0, 1 - BETA * (w - v)),
    "ipo": lambda w, v, m, n: (w / m - v / n - 1 / (2 * BETA)) ** 2,
    "exo_pair": lambda w, v, *_: (
        sig(BETA * (w - v)) * (math.log(sig(BETA * (w - v))) - math.log(1 - EPSILON))
        + sig(BETA * (v - w)) * (math.log(sig(BETA * (v - w))) - math.log(EPSILON))
    ),
    "nca_pair": lambda w, v, *_: minus_log_sig(BETA * w) + 0.5 * minus_log_sig(-BETA * w) + 0.5 * minus_log_sig(-BETA * v),
    "robust": lambda w, v, *_: (
        ((1 - EPSILON) * minus_log_sig(BETA * (w - v)) - EPSILON * minus_log_sig(BETA * (v - w))) / (1 - 2 * EPSILON)
    ),
    "bco_pair": lambda w, v, *_: minus_log_sig(BETA * w) + minus_log_sig(-BETA * v),
    "sppo_hard": lambda w, v, *_: (w - 0.5 / BETA) ** 2 + (v + 0.5 / BETA) ** 2,
    "aot": lambda w, v, *_: (1 - EPSILON) * minus_log_sig(BETA * (w - v)) + EPSILON * minus_log_sig(BETA * (v - w)),
    "aot_unpaired": lambda w, v, *_: (1 - EPSILON) * minus_log_sig(BETA * (w - v)) + EPSILON * minus_log_sig(BETA * (v - w)),
    "apo_zero": lambda w, v, *_: 1 - sig(BETA * w) + sig(BETA * v),
    "apo_down": lambda w, v, *_: sig(BETA * w) + 1 - sig(BETA * (w - v)),
    "discopop": lambda w, v, *_: (
        minus_log_sig(BETA * (w - v)) * (1 - sig(BETA * (w - v) / 0.05)) + math.exp(-BETA * (w - v)) * sig(BETA * (w - v) / 0.05)
    ),
    "sigmoid_norm": lambda w, v, m, n: minus_log_sig(BETA * (w / m - v / n)),
}
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")


def trained_on(workspace: Path, tmp_path: Path, options: dict[str, Any]) -> tuple[Path, list[dict[str, float]], list[dict[str, float]]]:
    """The folder of a model after two steps of four rows, log.csv and eval.csv."""
    result, _ = train(workspace, FULL | {"num_epochs": 1, "eval_steps": 2, "eval_batch_size": 2} | options, scratch=tmp_path / "scratch")
    return result.path, read_log(result), read_log(result, "eval.csv")


@pytest.mark.shows("rl", "dpo_loss_type", "rl_beta", "dpo_label_smoothing")
@pytest.mark.parametrize("name", LOSSES)
def test_dpo(pairs: Path, tmp_path: Path, name: str) -> None:
    options = {"rl": "dpo", "dpo_loss_type": name} | ({"dpo_label_smoothing": EPSILON} if name in SMOOTHED else {})
    if name == "ipo":
        options = {"rl": "ipo"}
    folder, log, evaluations = trained_on(pairs, tmp_path, options)
    table, model, base = TokenTable(pairs / "data/tokens"), opened(folder), opened(pairs / "data/base")
    lengths = [ratios(base, base, table, row)[2:] for row in range(ROWS)]
    assert log[0]["loss"] == pytest.approx(np.mean([LOSSES[name](0, 0, *both) for both in lengths]), rel=1e-5)
    held_out = [ratios(model, base, table, row) for row in range(ROWS, ROWS + HELD_OUT)]
    last = evaluations[-1]
    assert last["eval_loss"] == pytest.approx(np.mean([LOSSES[name](*row) for row in held_out]), rel=1e-4)
    rewards = BETA * np.array([row[:2] for row in held_out])
    assert last["eval_rewards/chosen"] == pytest.approx(rewards[:, 0].mean(), rel=1e-3, abs=1e-5)
    assert last["eval_rewards/rejected"] == pytest.approx(rewards[:, 1].mean(), rel=1e-3, abs=1e-5)
    assert last["eval_rewards/margins"] == pytest.approx((rewards[:, 0] - rewards[:, 1]).mean(), rel=1e-3, abs=1e-5)
    assert last["eval_rewards/accuracies"] == pytest.approx((rewards[:, 0] > rewards[:, 1]).mean())
    assert abs(last["eval_rewards/margins"]) > 1e-3, "trained so little that nothing is shown"


RPO: dict[str, Any] = {"dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1, 0.3]}


@pytest.mark.shows("dpo_loss_weights", "dpo_use_weighting")
@pytest.mark.parametrize("options", [RPO, {"dpo_use_weighting": True}], ids=["rpo", "wpo"])
def test_dpo_with_the_likelihood_and_with_weights(pairs: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """RPO adds the likelihood of the better answer; WPO weights pairs by how likely the model is to write them."""
    folder, _, evaluations = trained_on(pairs, tmp_path, {"rl": "dpo"} | options)
    table, model, base = TokenTable(pairs / "data/tokens"), opened(folder), opened(pairs / "data/base")
    losses = []
    for row in range(ROWS, ROWS + HELD_OUT):
        better, worse, *_ = ratios(model, base, table, row)
        likelihood = -float(answer_log_probs(model, table.ids(row), table.mask(row)).mean())
        loss = minus_log_sig(BETA * (better - worse))
        losses.append(loss + 0.3 * likelihood if options is RPO else loss * likelihood_weight(model, table, row))
    assert evaluations[-1]["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def likelihood_weight(model: Any, table: TokenTable, row: int) -> float:
    """Equation 2 of arXiv 2406.11827: per token the probability over the sum of all squared probabilities, a geometric mean, of both."""
    weight = 1.0
    for ids, mask in ((table.ids(row), table.mask(row)), (table.rejected_ids(row), table.rejected_mask(row))):
        with torch.no_grad():
            scores = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None], use_cache=False).logits[0, :-1].double().log_softmax(-1)
        expected = (2 * scores).logsumexp(-1)[torch.from_numpy(mask[1:] != 0)]
        weight *= math.exp(float((answer_log_probs(model, ids, mask) - expected).mean()))
    return weight


@pytest.mark.shows("kto_desirable_weight", "kto_undesirable_weight")
@pytest.mark.parametrize("weights", [{}, {"kto_desirable_weight": 0.5, "kto_undesirable_weight": 2.0}], ids=["equal", "weighted"])
def test_kto(feedback: Path, tmp_path: Path, weights: dict[str, float]) -> None:
    """The divergence is that of prompts with the answer of the next row of the plan; not below zero."""
    folder, log, evaluations = trained_on(feedback, tmp_path, {"rl": "kto"} | weights)
    table, model, base = TokenTable(feedback / "data/tokens"), opened(folder), opened(feedback / "data/base")
    wanted, unwanted = weights.get("kto_desirable_weight", 1), weights.get("kto_undesirable_weight", 1)
    assert log[0]["loss"] * 4 % (0.5 * min(wanted, unwanted)) == pytest.approx(0, abs=1e-5), "each of four rows is a half of its weight"
    rows = range(ROWS, ROWS + HELD_OUT)
    found = [ratio(model, base, table.ids(row), table.mask(row)) for row in rows]
    kl = max(0, float(np.mean([ratio(model, base, *mismatched(table, row, rows)) for row in rows])))
    good = [bool(table.labels(row)[0]) for row in rows]
    losses = [
        wanted * (1 - sig(BETA * (r - kl))) if is_good else unwanted * (1 - sig(BETA * (kl - r)))
        for r, is_good in zip(found, good, strict=True)
    ]
    last = evaluations[-1]
    assert last["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    rewards = BETA * np.array(found)
    assert last["eval_kl"] == pytest.approx(kl, rel=1e-3, abs=1e-5)
    assert last["eval_rewards/chosen"] == pytest.approx(rewards[good].mean(), rel=1e-3, abs=1e-5)
    assert last["eval_rewards/margins"] == pytest.approx(rewards[good].mean() - rewards[~np.array(good)].mean(), rel=1e-3, abs=1e-5)


def ratio(model: Any, base: Any, ids: np.ndarray, mask: np.ndarray) -> float:
    return float((answer_log_probs(model, ids, mask) - answer_log_probs(base, ids, mask)).sum())


def mismatched(table: TokenTable, row: int, rows: range) -> tuple[np.ndarray, np.ndarray]:
    """A row's prompt with the next row's answer."""
    other = rows[(row - rows[0] + 1) % len(rows)]
    prompt, answer = int(table.mask(row).argmax()), int(table.mask(other).argmax())
    ids = np.concatenate([table.ids(row)[:prompt], table.ids(other)[answer:]])
    return ids, np.concatenate([table.mask(row)[:prompt], table.mask(other)[answer:]])


@pytest.mark.shows("orpo_alpha")
def test_orpo(pairs: Path, tmp_path: Path) -> None:
    """arXiv 2403.07691, with mean log-probabilities; the likelihood is that of prompt and better answer."""
    folder, _, evaluations = trained_on(pairs, tmp_path, {"rl": "orpo", "rl_beta": None, "orpo_alpha": 0.3})
    table, model = TokenTable(pairs / "data/tokens"), opened(folder)
    losses = []
    for row in range(ROWS, ROWS + HELD_OUT):
        better = math.exp(answer_log_probs(model, table.ids(row), table.mask(row)).mean())
        worse = math.exp(answer_log_probs(model, table.rejected_ids(row), table.rejected_mask(row)).mean())
        odds = math.log(better / (1 - better)) - math.log(worse / (1 - worse))
        losses.append(-float(log_probs(model, table.ids(row)).mean()) + 0.3 * minus_log_sig(odds))
    assert evaluations[-1]["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.shows("simpo_gamma", "cpo_alpha")
@pytest.mark.parametrize(("given", "gamma", "alpha"), [({}, 0.5, 1), ({"simpo_gamma": 0.2, "cpo_alpha": 0}, 0.2, 0)])
def test_simpo(pairs: Path, tmp_path: Path, given: dict[str, float], gamma: float, alpha: float) -> None:
    """arXiv 2405.14734, with mean log-probabilities; the likelihood is that of the better answer."""
    folder, _, evaluations = trained_on(pairs, tmp_path, {"rl": "simpo"} | given)
    table, model = TokenTable(pairs / "data/tokens"), opened(folder)
    losses = []
    for row in range(ROWS, ROWS + HELD_OUT):
        better = float(answer_log_probs(model, table.ids(row), table.mask(row)).mean())
        worse = float(answer_log_probs(model, table.rejected_ids(row), table.rejected_mask(row)).mean())
        losses.append(minus_log_sig(BETA * (better - worse) - gamma) - alpha * better)
    assert evaluations[-1]["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.shows("reward_model", "num_labels", "center_rewards_coefficient")
@pytest.mark.parametrize("options", [{}, {"center_rewards_coefficient": 0.1, "num_labels": 1}], ids=["plain", "centred"])
def test_reward_model(pairs: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    folder, _, evaluations = trained_on(pairs, tmp_path, {"reward_model": True, "rl_beta": None} | options)
    table = TokenTable(pairs / "data/tokens")
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    assert type(model).__name__ == "LlamaForSequenceClassification" and model.config.num_labels == 1

    def score(ids: np.ndarray) -> float:
        with torch.no_grad():
            return float(model(torch.from_numpy(ids.astype(np.int64))[None]).logits)

    scores = np.array([(score(table.ids(row)), score(table.rejected_ids(row))) for row in range(ROWS, ROWS + HELD_OUT)])
    losses = [minus_log_sig(w - v) + options.get("center_rewards_coefficient", 0) * (w + v) ** 2 for w, v in scores]
    last, margins = evaluations[-1], scores[:, 0] - scores[:, 1]
    assert last["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert last["eval_rewards/accuracies"] == pytest.approx((margins > 0).mean())
    assert last["eval_rewards/margins"] == pytest.approx(margins.mean(), rel=1e-3, abs=1e-5)
    assert last["eval_rewards/mean"] == pytest.approx(scores.mean(), rel=1e-3, abs=1e-5)


@pytest.mark.shows("process_reward_model")
def test_process_reward_model(tmp_path: Path) -> None:
    workspace = build(tmp_path / "steps", step_rows())
    folder, _, evaluations = trained_on(workspace, tmp_path, {"process_reward_model": True, "rl_beta": None})
    table = TokenTable(workspace / "data/tokens")
    model = AutoModelForTokenClassification.from_pretrained(folder, local_files_only=True).eval()
    assert type(model).__name__ == "LlamaForTokenClassification" and model.config.num_labels == 2
    losses, right = [], []
    for row in range(ROWS, ROWS + HELD_OUT):
        with torch.no_grad():
            scores = model(torch.from_numpy(table.ids(row).astype(np.int64))[None]).logits[0].double().log_softmax(-1)
        for place, label in zip(np.flatnonzero(table.mask(row)), table.labels(row), strict=True):
            losses.append(-float(scores[place, label]))
            right.append(int(scores[place].argmax()) == label)
    assert evaluations[-1]["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert evaluations[-1]["eval_accuracy"] == pytest.approx(np.mean(right), rel=1e-5)
