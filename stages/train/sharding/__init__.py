"""Processes that share out weights, gradients and optimizer states instead of keeping a copy each."""
