"""Checkpoints that count only when complete, and only for the run they are of."""
