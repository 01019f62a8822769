"""maddubs: integer products whose sums of pairs are held to 16 bits."""
