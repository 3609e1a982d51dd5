"""transformers' Trainer on bins: our order, our loss, nothing printed."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.integrations.deepspeed import deepspeed_load_checkpoint

from pipeline.options.views import TrainOptions
from stages.train.adapters.relora import load_base, save_base
from stages.train.attention.joining import joins_rows
from stages.train.attention.varlen import tells_documents
from stages.train.data.bins import BinDataset, Collator, EpochOrder, Padding
from stages.train.learning_rates.build import build_scheduler
from stages.train.loop.evaluation import EVALUATED, batch_sums, metrics_of
from stages.train.loop.milestones import Milestones
from stages.train.loss import Loss, choose_loss, selects_logits
from stages.train.model.compilation import compiles_layers
from stages.train.model.offload import keep_activations
from stages.train.model.precision import as_in_training
from stages.train.optimizers.build import build_optimizer


class Steps(Milestones):
    """Mixed into a Trainer: the order of bins, the optimizer, its schedule and what is kept for the backward pass are regrow's."""

    def follow(self, options: TrainOptions, order: EpochOrder) -> None:
        """To be called as soon as the Trainer is made."""
        self.remove_callback(PrinterCallback)
        self._order, self._options = order, options
        folder = Path(str(self.args.output_dir)).with_name("activations") / str(self.args.process_index)
        self._kept = keep_activations(options, cast(torch.nn.Module, self.model), folder)

    def compute_loss_context_manager(self) -> ExitStack:
        """The context of a forward pass: also what decides where it leaves the activations."""
        stack = super().compute_loss_context_manager()
        stack.enter_context(self._kept())
        return stack

    @property
    def order(self) -> EpochOrder:
        """In which bins come."""
        return self._order

    def publish(self, folder: Path) -> None:
        """Write what data/trained holds of the run besides weights and logs: of most kinds of training, nothing."""

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """What the options name, over the groups that they ask for."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.model if model is None else model, self._options, int(self.args.warmup_steps))
            if self._options.deepspeed:  # which cannot share out an empty group
                self.optimizer.param_groups = [group for group in self.optimizer.param_groups if group["params"]]
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """What the options name."""
        if self.lr_scheduler is None:
            target = cast(Optimizer, self.optimizer if optimizer is None else optimizer)
            scheduler = build_scheduler(target, self._options, int(self.args.warmup_steps), num_training_steps)
            self.lr_scheduler, self._created_lr_scheduler = scheduler, True
        return self.lr_scheduler

    def train(self, *args: Any, **keywords: Any) -> Any:
        """Train, and leave the weights as they are to be used."""
        result = super().train(*args, **keywords)
        self._take_evaluation_weights()
        return result

    def evaluate(self, *args: Any, **keywords: Any) -> dict[str, float]:
        """Measure the weights as they are to be used."""
        self._take_evaluation_weights()
        return super().evaluate(*args, **keywords)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self._options.relora:
            save_base(self.model, Path(str(output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._options.deepspeed:
            whole = not hasattr(self.model, "peft_config")
            deepspeed_load_checkpoint(self.model_wrapped, resume_from_checkpoint, load_module_strict=whole)  # type: ignore[no-untyped-call]
            return
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._options.relora:
            load_base(self.model, Path(resume_from_checkpoint))

    def _take_evaluation_weights(self) -> None:
        """Schedule-free optimizers train at another point than the one they have averaged. The next step goes back to it."""
        if callable(switch := getattr(self.optimizer, "eval", None)):
            switch()

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One epoch of micro-batches of this process. Several processes take turns, batch by batch."""
        loader: DataLoader[Any] = DataLoader(
            cast(BinDataset, self.train_dataset),
            batch_size=self.args.per_device_train_batch_size,
            sampler=self._order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared


class BinTrainer(Steps, Trainer):
    """Trains ``model`` on the bins of ``dataset`` in ``order``."""

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        dataset: BinDataset,
        order: EpochOrder,
        pad_token_id: int,
        padding: Padding,
        held_out: BinDataset | None = None,
        *,
        options: TrainOptions,
    ) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        joined = joins_rows(options, base)
        tell = tells_documents(base) and compiles_layers(base, options)
        collator = Collator(pad_token_id, select_logits=selects_logits(base), padding=padding, joined=joined, tell_documents=tell)
        super().__init__(model, arguments, collator, dataset, held_out, compute_loss_func=self.choose_loss(model, options))
        self.follow(options, order)

    def choose_loss(self, model: Any, options: TrainOptions) -> Loss:
        """What is minimised."""
        return choose_loss(model, options)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """See :data:`stages.train.loop.evaluation.EVALUATED`."""
        model: Any = self.model
        model.eval()
        sums = torch.zeros(len(EVALUATED), dtype=torch.float64)
        for batch in self.get_eval_dataloader():
            sums += batch_sums(self._prepare_inputs(batch), lambda inputs: self._summed_loss(model, inputs))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        return metrics_of(self.over_processes(sums))

    def _summed_loss(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        one = torch.tensor(1, device=self.args.device)
        # Others than DeepSpeed put autocast into the model's own forward.
        with as_in_training(self._options, self.args.device) if self._options.deepspeed else nullcontext():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True, num_items_in_batch=one)
        return loss / self.accelerator.num_processes, outputs.logits
