"""What regrow adds to TRL's trainers: every row of a step counts the same, and measurements do not depend on batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from pipeline.options.views import TrainOptions
from stages.train.data.bins import EpochOrder
from stages.train.preference.means import Means
from stages.train.trainer import Steps

ALONE = ("aot", "aot_unpaired", "sft")
"""Losses that look at a batch as a whole. Held-out rows are measured one by one with them."""


class Compared(Steps):
    """Mixed into a trainer of TRL. Rows and measurements are those of pairs; subclasses have others."""

    measured: ClassVar[Mapping[str, str]] = {
        name: name for name in ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")
    }
    """Columns of log.csv, and after ``eval_`` of eval.csv, by TRL's names of what is in them."""

    train_dataset: Any
    eval_dataset: Any
    _metrics: Any
    alone = False
    """Whether held-out rows must be measured one by one, for the result not to depend on batches."""

    def learn(self, options: TrainOptions, order: EpochOrder, rows: Any, held_out: Any) -> None:
        """Take over from what TRL's constructor did with placeholders."""
        self.follow(options, order)
        self.loss_is_scaled_for_ga = True
        self.train_dataset, self.eval_dataset = rows, held_out
        self.processing_class = None  # or it would be saved with every checkpoint
        self._means = Means(tuple(self.measured.values()))

    def rows(self, inputs: Mapping[str, Any]) -> int:
        """Rows of a batch; pairs count once."""
        return len(inputs["input_ids"]) // 2

    def weights(self, inputs: Mapping[str, Any]) -> dict[str, float]:
        """For each measurement the number of rows that it is the mean of."""
        return dict.fromkeys(self.measured.values(), self.rows(inputs))

    def said(self) -> Any:
        """What TRL's trainer noted of the batches since the last time it was cleared."""
        model: Any = self.model
        return self._metrics["train" if model.training else "eval"]

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """Rows of a step, on all processes."""
        rows = torch.tensor([sum(self.rows(batch) for batch in batch_samples)], device=device)
        return torch.as_tensor(self.accelerator.gather(rows)).sum()

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """TRL's mean over a micro-batch, as this batch's share of the mean over the rows of the step."""
        share = self.rows(inputs) * self.args.world_size / num_items_in_batch
        loss, values = self._learned(model, inputs)
        self._means.add(values, self.weights(inputs))
        return loss * share

    def _learned(self, model: Any, inputs: Any) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of a batch, and what it says of the batch."""
        self._forget()
        loss: Any = super().compute_loss(model, dict(inputs))
        said = self.said()
        values = {name: float(said[of][-1]) for of, name in self.measured.items() if said.get(of)}
        self._forget()
        return loss, values

    def _forget(self) -> None:
        for noted in self._metrics.values():
            noted.clear()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the step was measured to be; TRL has nothing left to add."""
        if "loss" in logs:
            logs |= self.summed_up(self._means.take())
        super().log(logs, start_time)

    def summed_up(self, means: dict[str, float]) -> dict[str, float]:
        """Means of all rows, with what follows from them."""
        return means

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Loss and measurements over the held-out rows, each row counted once whatever batch it was in."""
        model: Any = self.model
        model.eval()
        means = Means(("loss", *self.measured.values()))
        for batch in self.get_eval_dataloader():
            inputs = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                loss, values = self._learned(model, inputs)
            means.add({"loss": float(loss), **values}, {"loss": self.rows(inputs), **self.weights(inputs)})
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        means.sums = self.over_processes(means.sums)
        return {f"eval_{name}": value for name, value in self.summed_up(means.take()).items()}

    @property
    def held_out_batch(self) -> int:
        """See :attr:`alone`."""
        return 1 if self.alone else super().held_out_batch

    def _send_telemetry(self) -> None:
        """TRL would report the kind of training over the network."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """regrow writes its own; TRL's asks the network and goes into every checkpoint."""
