"""Where a token comes from and what became of a row: answers computed from the artifacts, which hold all that is needed."""
