"""Optimizers, schedules of the learning rate, and clipping of gradients."""
from .optimizers import SGD, Adam, AdamW, Optimizer, clip_grad_norm
from .schedules import CosineWithWarmup, ExponentialLR, Schedule, StepLR

__all__ = ["SGD", "Adam", "AdamW", "CosineWithWarmup", "ExponentialLR", "Optimizer", "Schedule", "StepLR",
           "clip_grad_norm"]
