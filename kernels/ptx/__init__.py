"""CUDA: numba-cuda (cuda.py) and PTX instructions (intrinsics.py) in one place each, and how kernels are launched."""
