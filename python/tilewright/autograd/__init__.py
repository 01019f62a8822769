"""Tensor and its tape: derivatives of whatever is computed from tensors."""
from .check import gradcheck
from .compiled import compile
from .tape import no_grad
from .tensor import Tensor, apply

__all__ = ["Tensor", "apply", "compile", "gradcheck", "no_grad"]
