"""What data/trained holds."""
