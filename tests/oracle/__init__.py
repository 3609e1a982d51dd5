"""Rows that Axolotl itself made of a config and its data, and whether ours are the same: ``make oracle CASES=DIR``."""
