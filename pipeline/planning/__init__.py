"""`regrow plan`: what `dvc repro` would do and why, without doing any of it or writing anything."""
