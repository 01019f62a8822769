"""Optimizer steps over lists of parameters, in place, and the clipping of gradients."""
