"""TRL's GRPO on regrow's prompts: ids as they were tokenized, answers that do not depend on when a run was interrupted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from pipeline.generation import trl_of
from pipeline.options.views import TrainOptions
from stages.train.online.measures import Measures
from stages.train.online.prompts import PromptOrder, Prompts, Question, as_they_are
from stages.train.online.rewards import Judge
from stages.train.online.samples import FILE, Samples, answers_in
from stages.train.online.settings import beta_of
from stages.train.online.state import load_state, save_state
from stages.train.online.trl_grpo import GRPOTrainer, SyncRefModelCallback, add_fused_lm_head
from stages.train.preference.reference import Reference, reference_of, without_dropout
from stages.train.trainer import Steps


@dataclass(frozen=True)
class Asked:
    """What the trainer is made of. ``rollout``: a function of the user's own that generates; ``say`` shows answers."""

    model: Any
    arguments: Any
    prompts: Prompts
    held_out: Prompts | None
    order: PromptOrder
    tokenizer: Any
    judges: Sequence[Judge]
    rollout: Callable[..., Any] | None
    options: TrainOptions
    say: Callable[[str], None]


class GRPO(Steps, GRPOTrainer):
    """GRPO, and GDPO."""

    # TRL says less of them than is true here.
    model: Any
    ref_model: Any
    args: Any
    data_collator: Any
    train_dataset: Any
    num_generations: Any

    def __init__(self, asked: Asked) -> None:
        from datasets import Dataset

        without_dropout(asked.model)
        beta, pad = beta_of(asked.options), asked.model.config.pad_token_id
        reference = reference_of(asked.model) if beta else None
        placeholder = Dataset.from_dict({"prompt": [""]})  # TRL looks for texts in it; prompts are tokenized already
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an experimental feature")  # requirements.lock holds the version
            super().__init__(
                model=asked.model,
                args=asked.arguments,
                reward_funcs=[judge.judge for judge in asked.judges],
                reward_processing_classes=[judge.tokenizer for judge in asked.judges],
                train_dataset=placeholder,
                eval_dataset=None if asked.held_out is None else placeholder,
                processing_class=asked.tokenizer,
                rollout_func=asked.rollout,
            )
        self.follow(asked.options, asked.order)
        asked.model.config.pad_token_id = pad
        self.train_dataset, self.eval_dataset, self.data_collator = asked.prompts, asked.held_out, as_they_are
        self.reward_func_names = [judge.name for judge in asked.judges]
        self.num_generations_eval = self.num_generations
        self.samples = Samples(self.args.max_steps, self.num_iterations, self.num_generations)
        self._questions: Sequence[Question] = ()
        self._measures, self._say = Measures(self.reward_func_names), asked.say
        self.beta = beta
        if reference is not None:
            self._hold_to(reference)

    def _hold_to(self, reference: torch.nn.Module) -> None:
        if isinstance(reference, Reference):
            self.ref_model = Reference(self.model, adapter=False)  # the model that has TRL's output head by now
            return
        add_fused_lm_head(cast(Any, reference), self.temperature)
        self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        if trl_of(self._options).sync_ref_model:
            self.add_callback(SyncRefModelCallback(self.ref_model, self.accelerator))

    @property
    def follows(self) -> bool:
        """Whether the reference changes, and so belongs to a checkpoint."""
        return trl_of(self._options).sync_ref_model

    @property
    def answers_are_due(self) -> bool:
        """Whether the next micro-batch begins with generating."""
        return bool(self._step % (self.args.steps_per_generation * self.num_iterations) == 0)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One epoch of batches of prompts, each for all the answers of a step."""
        size = self.args.per_device_train_batch_size * self.args.steps_per_generation
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_size=size,
            sampler=self._order,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL's, on a sequence of :class:`Question`, whose ids are known. Answers, prompts and scores are noted."""
        self._questions, before = inputs, self.state.num_input_tokens_seen
        made: dict[str, Any] = super()._generate_and_score_completions([dict(question.columns) for question in inputs])
        if self.model.training:
            trained = self.accelerator.gather(made["completion_mask"].sum()).sum()
            self._measures.generated(self.state.num_input_tokens_seen - before, int(trained))
            self.samples.note(self.state.global_step, self._logs)
            self._show()
        return made

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The ids that data/tokens has."""
        return [question.ids for question in self._questions], None, {}

    def _generate_single_turn(self, *arguments: Any, **keywords: Any) -> Any:
        """Without the dropout of training, which the model that is asked has not."""
        training = self.model.training
        self.model.eval()
        try:
            return super()._generate_single_turn(*arguments, **keywords)  # type: ignore[no-untyped-call]
        finally:
            self.model.train(training)

    def _show(self) -> None:
        trl = trl_of(self._options)
        if trl.log_completions and self.args.should_save:
            for line in list(answers_in(self._logs))[: trl.num_completions_to_print]:
                scores = ", ".join(f"{name} {score}" for name, score in line["rewards"].items())
                self._say(f"step {self.state.global_step + 1}, {scores}: {line['completion']!r}")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the step's answers were measured to be, under the names of log.csv."""
        if "loss" in logs:
            logs |= self._measures.of_step(self._metrics["train"], self.state.log_history)
        super().log(logs, start_time)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Answer the held-out prompts, each as often as in training. The same numbers are drawn every time, and none of training's."""
        self.model.eval()
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.args.seed + self.args.process_index)
            for batch in self.get_eval_dataloader():
                self._generate_and_score_completions([question for question in batch for _ in range(self.num_generations)])
                self._measures.measured(self._metrics["eval"], len(batch))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        return self._measures.held_out()

    @property
    def held_out_batch(self) -> int:
        """Prompts: ``eval_batch_size`` counts answers."""
        return max(1, int(self.args.per_device_eval_batch_size) // int(self.num_generations))

    def publish(self, folder: Path) -> None:
        """What belongs to data/trained besides weights and logs."""
        self.samples.save(folder / FILE)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        save_state(self, self._measures, Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[no-untyped-call]
        if checkpoint is not None:
            load_state(self, self._measures, Path(checkpoint))

    def _send_telemetry(self) -> None:
        """TRL would report the kind of training over the network."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """regrow writes its own; TRL's asks the network and goes into every checkpoint."""
