"""What the BLAS libraries of a comparison are told. They read it when they are loaded, so call this before NumPy is."""
from __future__ import annotations

import os

THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
SLOWER = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # where these are set, they hold OpenBLAS back


def set_blas(threads: int) -> None:
    """Have BLAS use so many threads, and the kernels of this processor."""
    for name in THREADS:
        os.environ[name] = str(threads)
    for name in SLOWER:
        os.environ.pop(name, None)
