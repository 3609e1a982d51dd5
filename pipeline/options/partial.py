"""Training parts of the model, and noise. Read by train."""

from __future__ import annotations

from pipeline.options.schema import Group, not_yet, renamed


class PartialTraining(Group):
    """Which weights are trained when there is no adapter; LISA is arXiv 2403.17919, NEFTune arXiv 2310.05914."""

    unfrozen_parameters: list[str] | None = not_yet(
        "Patterns of parameter names that are trained; all others stay as they are.", idle=([],)
    )
    lisa_n_layers: int | None = not_yet("LISA: layers that are trained at a time.", idle=(), ge=1)
    lisa_step_interval: int | None = not_yet("LISA: steps until other layers are drawn.", idle=(), ge=1)
    lisa_layers_attribute: str | None = not_yet("LISA: where the model keeps its layers.", "model.layers", idle=())
    neftune_noise_alpha: float | None = not_yet("NEFTune: strength of the noise on input embeddings.", idle=(), gt=0)
    noisy_embedding_alpha: float | None = renamed("neftune_noise_alpha")
