"""Tests of learning from answers that the model generates."""
