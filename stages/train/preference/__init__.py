"""Learning from preferences: TRL's losses on the pipeline's own rows, order, checkpoints and evaluations."""
