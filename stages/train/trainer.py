"""transformers' Trainer on bins: our order, our loss, nothing printed."""

from __future__ import annotations

from typing import Any, cast

from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from stages.train.data import BinDataset, Collator, EpochOrder, Padding
from stages.train.loss import selects_logits, token_loss


class BinTrainer(Trainer):
    """Trains ``model`` on the bins of ``dataset`` in ``order``."""

    def __init__(
        self, model: Any, arguments: TrainingArguments, dataset: BinDataset, order: EpochOrder, pad_token_id: int, padding: Padding
    ) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        collator = Collator(pad_token_id, select_logits=selects_logits(base), padding=padding)
        super().__init__(model, arguments, collator, dataset, compute_loss_func=token_loss)
        self.remove_callback(PrinterCallback)
        self._order = order

    def get_train_dataloader(self) -> DataLoader[Any]:
        """One epoch of micro-batches of this process. Several processes take turns, batch by batch."""
        loader: DataLoader[Any] = DataLoader(
            cast(BinDataset, self.train_dataset),
            batch_size=self.args.per_device_train_batch_size,
            sampler=self._order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared
