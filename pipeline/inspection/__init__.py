"""What tokenize made, for people and programs to look at: rows with their trained text, and what each source contributes."""
