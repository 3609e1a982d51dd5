"""Training parts of the model, and noise. Read by train."""

from __future__ import annotations

from pipeline.options.schema import Group, option, renamed


class PartialTraining(Group):
    """Which weights are trained when there is no adapter; LISA is arXiv 2403.17919, NEFTune arXiv 2310.05914."""

    unfrozen_parameters: list[str] | None = option(
        None, "Patterns of parameter names that are trained, as `model.layers.1[0-9]` or `lm_head.weight[100:200]`; all others stay."
    )
    lisa_n_layers: int | None = option(None, "LISA: layers that are trained at a time.", ge=1)
    lisa_step_interval: int | None = option(None, "LISA: steps until other layers are drawn.", ge=1)
    lisa_layers_attribute: str = option("model.layers", "LISA: where the model keeps its layers.")
    neftune_noise_alpha: float | None = option(None, "NEFTune: strength of the noise on input embeddings.", gt=0)
    noisy_embedding_alpha: float | None = renamed("neftune_noise_alpha")
