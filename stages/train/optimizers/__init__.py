"""Optimizers: which class, with which arguments, over which groups of parameters."""
