"""The model card of data/trained reaches data/merged, and is then true of a whole model."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from tests.merge.adapters import llama, publish_adapter, publish_base
from tests.merge.test_merge import merge
from tests.tiny import publish_artifact, save_model

ADAPTER = """---
base_model: owner/model
base_model_relation: adapter
library_name: peft
tags:
- lora
---

# Adapter for model

Made by regrow.

```yaml
library_name: peft
---
```
"""


def test_a_merged_adapter_is_a_whole_model(tmp_path: Path) -> None:
    publish_base(tmp_path, llama())
    publish_adapter(tmp_path, r=2, target_modules=["q_proj"])
    (tmp_path / "data/trained/manifest.json").unlink()
    folder = (tmp_path / "data/trained").rename(tmp_path / "made")
    (folder / "README.md").write_text(ADAPTER)
    publish_artifact(tmp_path / "data", "trained", lambda to: [path.rename(to / path.name) for path in folder.iterdir()], kind="adapter")
    merged, _ = merge(tmp_path)
    card = ModelCard.load(merged.path / "README.md")
    assert card.data.to_dict() == {
        "base_model": "owner/model",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "tags": ["lora"],
    }
    assert card.text.startswith("\n# Fine-tuned model\n\nThe adapter that")
    assert "Made by regrow.\n\n```yaml\nlibrary_name: peft\n---" in card.text, "only the header is changed"


def test_a_full_model_keeps_its_card(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        save_model(folder)
        (folder / "README.md").write_text("no header")

    publish_base(tmp_path, llama())
    publish_artifact(tmp_path / "data", "trained", fill, kind="full")
    assert (merge(tmp_path)[0].path / "README.md").read_text() == "no header"
