"""The eight stages, one package each. No stage imports another; they meet in artifacts under data/."""
