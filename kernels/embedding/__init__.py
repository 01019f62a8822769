"""embedding: rows of a table by their numbers, and its deterministic gradient."""
