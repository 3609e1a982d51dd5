"""Who sees whom within a bin, and by which kernel."""
