"""`regrow reproduce`: run what is committed again, elsewhere and otherwise, and compare every digest."""
