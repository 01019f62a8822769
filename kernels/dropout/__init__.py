"""dropout with a counter-based mask, the same on every backend."""
