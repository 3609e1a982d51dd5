"""Uploads to the Hugging Face hub, while training and at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.options.views import TrainOptions
from stages.train.trackers.tracker import Beginning, Numbers, Plain

_STATE = ["*.pt", "*.pth", "*.bin", "trainer_state.json", "complete.json"]
"""What a checkpoint holds besides a model: for going on, not for using it."""


class Hub(Plain):
    """https://huggingface.co/docs/huggingface_hub/guides/upload. Strategies are those of transformers' Trainer.

    Uploads are waited for: a checkpoint may be removed as soon as the next one is complete.
    """

    def __init__(self, options: TrainOptions, beginning: Beginning) -> None:
        from huggingface_hub import HfApi

        self._api: Any = HfApi()
        self._strategy = options.hub_strategy
        self._to = {"repo_id": self._api.create_repo(str(options.hub_model_id), private=True, exist_ok=True).repo_id}
        if options.hub_revision is not None:
            self._api.create_branch(**self._to, branch=options.hub_revision, exist_ok=True)
            self._to["revision"] = options.hub_revision

    def log(self, step: int, numbers: Numbers) -> None:
        """Numbers go with the weights, in log.csv."""

    def keep(self, folder: Path, name: str, *, last: bool) -> None:
        if last:
            self._upload(folder, "The trained model")
        elif self._strategy != "end":
            self._upload(folder, f"Weights of {name}", ignore_patterns=_STATE)
            if self._strategy != "every_save":
                self._upload(folder, f"All of {name}", path_in_repo=name if self._strategy == "all_checkpoints" else "last-checkpoint")

    def _upload(self, folder: Path, message: str, **more: Any) -> None:
        self._api.upload_folder(folder_path=str(folder), commit_message=message, **self._to, **more)

    def end(self, *, finished: bool) -> None:
        """Every upload was waited for."""
