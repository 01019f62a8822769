"""The kernels, one folder an operation family: spec.py says what it is, the files beside it compute it."""
