"""The course of a run: its steps, what is due after each, what is watched, what is logged."""
