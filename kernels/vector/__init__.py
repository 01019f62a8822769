"""Numba's SIMD: vector types as wide as the host's registers, memory access, and the mathematical functions on them."""
