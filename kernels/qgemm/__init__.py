"""Products of matrices of int8 and uint8, and linear layers with quantized weights."""
