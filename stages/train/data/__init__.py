"""Bins as batches: opened, counted, put in order."""
