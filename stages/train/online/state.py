"""What a checkpoint of GRPO holds besides the usual: answers that are still to be learned from, and a reference that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stages.train.online.measures import Measures
from stages.train.online.samples import FILE

_REFERENCE = "reference.pt"


def save_state(trainer: Any, measures: Measures, folder: Path) -> None:
    """Beside optimizer and schedule. Every process has answers of its own."""
    left = None if trainer.answers_are_due else trainer._buffered_inputs
    state = {"step": trainer._step, "answers": left, "batch": list(measures.batch)}
    folder.mkdir(parents=True, exist_ok=True)  # this process may be the first that comes here
    torch.save(state, folder / _answers(trainer))
    if trainer.args.should_save:
        trainer.samples.save(folder / FILE)
        if trainer.follows:
            torch.save(trainer.ref_model.state_dict(), folder / _REFERENCE)


def load_state(trainer: Any, measures: Measures, folder: Path) -> None:
    """What :func:`save_state` wrote."""
    state = torch.load(folder / _answers(trainer), map_location=trainer.args.device, weights_only=True)
    trainer._step, trainer._buffered_inputs = state["step"], state["answers"]
    measures.batch = (state["batch"][0], state["batch"][1])
    trainer.samples.load(folder / FILE)
    if trainer.follows:
        trainer.ref_model.load_state_dict(torch.load(folder / _REFERENCE, map_location=trainer.args.device, weights_only=True))


def _answers(trainer: Any) -> str:
    return f"answers-{trainer.args.process_index}.pt"
