"""`regrow verify`: every byte under data/ against its manifest, and every digest back to the sources."""
