"""Learning from answers that the model itself generates: TRL's GRPO on the pipeline's prompts, order, checkpoints and evaluations."""
