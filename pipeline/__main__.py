"""``python -m pipeline``: the same as ``regrow``."""

from pipeline.cli import main

main()
