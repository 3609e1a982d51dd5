"""`merge.method`: the trained adapter or model merged with others of the same base, by what each of them changes in it."""
