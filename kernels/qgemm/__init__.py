"""Products of integers, and of floats through them."""
