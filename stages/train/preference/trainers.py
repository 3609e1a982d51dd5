"""TRL's trainers on regrow's rows. What each is given: the model as built, batches ready to be learned from, no tokenizer to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from pipeline.errors import RegrowError
from pipeline.options.views import TrainOptions
from stages.train.data.bins import EpochOrder
from stages.train.preference.collate import CollateFeedback, CollateOdds, CollatePairs, CollateScored, Pads
from stages.train.preference.compared import ALONE, Compared
from stages.train.preference.means import Means
from stages.train.preference.reference import Reference, reference_of, without_dropout
from stages.train.preference.rows import Pairs
from stages.train.preference.trl_trainers import CPOTrainer, DPOTrainer, KTOTrainer, ORPOTrainer, RewardTrainer


@dataclass(frozen=True)
class Material:
    """What a trainer is made of. ``arguments`` are of the class that :mod:`stages.train.preference.settings` names for it."""

    model: Any
    arguments: Any
    rows: Any
    held_out: Any
    order: EpochOrder
    tokenizer: Any
    pads: Pads
    options: TrainOptions

    def given(self, collate: Any) -> dict[str, Any]:
        """Arguments of TRL's constructors. The rows are placeholders: it would look for texts in them."""
        without_dropout(self.model)
        placeholder = _placeholder()
        held_out = None if self.held_out is None else placeholder
        return {
            "model": self.model,
            "args": self.arguments,
            "data_collator": collate,
            "train_dataset": placeholder,
            "eval_dataset": held_out,
            "processing_class": self.tokenizer,
        }


def _placeholder() -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"bin": [0]})


class DPO(Compared, DPOTrainer):
    """DPO with all its losses, IPO among them."""

    ref_model: Any

    def __init__(self, material: Material) -> None:
        known = bool(material.options.precompute_ref_log_probs)
        reference: Any = Reference(material.model, adapter=True) if known else reference_of(material.model)
        super().__init__(ref_model=reference, **material.given(CollatePairs(material.pads)))
        self.learn(material.options, material.order, material.rows, material.held_out)
        self.alone = any(loss in ALONE for loss in self.loss_types)
        if isinstance(reference, Reference):
            self.ref_model = Reference(self.model, adapter=known)  # without the output head that TRL has put onto the other one
        if known:
            self._know_reference()

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _know_reference(self) -> None:
        """Compute all that is asked of the reference now, and let go of it."""
        for rows in (self.train_dataset, self.eval_dataset):
            if rows is not None:
                rows.reference = self._reference_log_probs(rows).numpy()
        self.precompute_ref_logps, self.ref_model = True, None

    def _reference_log_probs(self, rows: Pairs) -> torch.Tensor:
        """float32 ``[rows, 2]``: of chosen and rejected answers. Processes take turns."""
        own = range(self.args.process_index, len(rows), self.args.world_size)
        size = self.args.per_device_eval_batch_size
        found = torch.zeros(len(rows), 2)
        for first in range(0, len(own), size):
            numbers = list(own[first : first + size])
            chosen: Any = [rows[number] for number in numbers]
            both = self.compute_ref_log_probs(  # type: ignore[no-untyped-call]
                self.ref_model, self._prepare_inputs(self.data_collator(chosen))
            )
            found[numbers] = torch.stack(both, dim=1).float().cpu()
        return self.over_processes(found)


class KTO(Compared, KTOTrainer):
    """KTO: answers that are wanted, and answers that are not."""

    measured: ClassVar[Mapping[str, str]] = {name: name for name in ("rewards/chosen", "rewards/rejected", "kl")}
    ref_model: Any

    def __init__(self, material: Material) -> None:
        reference: Any = reference_of(material.model)
        super().__init__(ref_model=reference, **material.given(CollateFeedback(material.pads)))
        self.learn(material.options, material.order, material.rows, material.held_out)
        if isinstance(reference, Reference):
            self.ref_model = Reference(self.model, adapter=False)
        self._kl: float | None = None

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def rows(self, inputs: Mapping[str, Any]) -> int:
        return len(inputs["input_ids"])

    def weights(self, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Of all processes, as TRL's means are: one alone may have no answer of a kind."""
        wanted, every = self.over_processes(torch.tensor([int(inputs["label"].sum()), self.rows(inputs)])).tolist()
        return {"rewards/chosen": wanted, "rewards/rejected": every - wanted, "kl": every}

    def summed_up(self, means: dict[str, float]) -> dict[str, float]:
        both = "rewards/chosen" in means and "rewards/rejected" in means
        return means | ({"rewards/margins": means["rewards/chosen"] - means["rewards/rejected"]} if both else {})

    def measure(self) -> dict[str, float]:
        """With the divergence over all held-out rows, which in training is that of a micro-batch."""
        self._kl = self._divergence()
        try:
            return super().measure()
        finally:
            self._kl = None

    @torch.no_grad()
    def _divergence(self) -> float:
        own_model: Any = self.model
        own_model.eval()
        means = Means(("kl",))
        for batch in self.get_eval_dataloader():
            inputs = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                own, reference = self._mismatched(own_model, inputs), self._mismatched(self.ref_model, inputs)
            means.add({"kl": float((own - reference).mean())}, {"kl": self.rows(inputs)})
        means.sums = self.over_processes(means.sums)
        return means.take()["kl"]

    def _mismatched(self, model: Any, batch: Any) -> Any:
        return super()._compute_kl_logps(model, batch)  # type: ignore[no-untyped-call]

    def _compute_kl_logps(self, model: Any, batch: Any) -> Any:
        """While held-out rows are measured: numbers whose difference is the divergence over all of them."""
        if self._kl is None:
            return self._mismatched(model, batch)
        return torch.tensor([0.0 if model is self.ref_model else self._kl], device=self.args.device)


class _Odds(Compared):
    """ORPO and CPO: no reference; the likelihood of the better answers is a mean over the tokens of a batch."""

    alone = True
    _stored_metrics: Any

    def rows(self, inputs: Mapping[str, Any]) -> int:
        return len(inputs["chosen_input_ids"])

    def said(self) -> Any:
        return self._stored_metrics["train"]

    def _forget(self) -> None:
        self._stored_metrics.clear()


class ORPO(_Odds, ORPOTrainer):
    """ORPO."""

    def __init__(self, material: Material) -> None:
        given = material.given(CollateOdds(material.pads)) | {"train_dataset": material.rows, "eval_dataset": material.held_out}
        super().__init__(**given)
        self.learn(material.options, material.order, material.rows, material.held_out)


class SimPO(_Odds, CPOTrainer):
    """CPO with SimPO's loss."""

    def __init__(self, material: Material) -> None:
        given = material.given(CollateOdds(material.pads)) | {"train_dataset": material.rows, "eval_dataset": material.held_out}
        super().__init__(**given)
        self.learn(material.options, material.order, material.rows, material.held_out)


class Reward(Compared, RewardTrainer):
    """A model that gives an answer one score (Bradley-Terry)."""

    measured: ClassVar[Mapping[str, str]] = {"accuracy": "rewards/accuracies", "margin": "rewards/margins", "mean_reward": "rewards/mean"}

    def __init__(self, material: Material) -> None:
        super().__init__(**material.given(CollateScored(material.pads)))
        self.learn(material.options, material.order, material.rows, material.held_out)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def check_head(model: Any, options: TrainOptions) -> None:
    """TRL multiplies with the output head's weights themselves, past whatever an adapter puts around them.

    Raises:
        RegrowError: an adapter changes that head.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import TrainableTokensWrapper

    head = model.get_output_embeddings()
    if options.rl in ("dpo", "ipo", "kto", "grpo", "gdpo") and isinstance(head, BaseTunerLayer | TrainableTokensWrapper):
        raise RegrowError(
            f"rl: {options.rl} takes the weights of the output head as they are, and the adapter changes them.",
            "Leave the output head out of lora_target_modules and peft_trainable_token_indices, or name it in lora_modules_to_save.",
        )


def check_recomputation(options: TrainOptions, processes: int) -> None:
    """Reentrant recomputation under DDP marks a weight of a quantised model as ready twice, once for each forward pass.

    Raises:
        RegrowError: that was asked for.
    """
    reentrant = options.gradient_checkpointing and (options.gradient_checkpointing_kwargs or {}).get("use_reentrant")
    if processes > 1 and options.rl and options.load_in_4bit and reentrant:
        raise RegrowError(
            f"gradient_checkpointing_kwargs: use_reentrant does not work with rl: {options.rl} and load_in_4bit on {processes} processes.",
            "Write `use_reentrant: false`.",
        )


def check_shares(arguments: Any, rows: int, held_out: int, *, drop_last: bool) -> None:
    """Several processes compare batches of equal size only.

    Raises:
        RegrowError: rows are left over.
    """
    processes = arguments.world_size
    together = processes * arguments.per_device_train_batch_size
    if processes > 1 and rows % together and not drop_last:
        raise RegrowError(
            f"{rows} rows cannot be shared out to {processes} processes in micro-batches of {arguments.per_device_train_batch_size}.",
            "Set dataloader_drop_last: true, which leaves out others in each epoch.",
        )
    if processes > 1 and held_out % processes:
        raise RegrowError(
            f"{held_out} held-out rows cannot be shared out evenly to {processes} processes.",
            f"Set val_set_size to a multiple of {processes}, such as {held_out - held_out % processes or processes}.",
        )
