"""Matrix products: matmul, gemm, linear and its gradient."""
