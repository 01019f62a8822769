"""Layers, losses and their state. Modules take tensors or arrays and return tensors."""
from .activations import ELU, GELU, Activation, Hardswish, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from .layers import MLP, Dropout, Embedding, LayerNorm, Linear, RMSNorm, Sequential
from .losses import cross_entropy, mse_loss
from .module import Module, Parameter

__all__ = ["ELU", "GELU", "MLP", "Activation", "Dropout", "Embedding", "Hardswish", "LayerNorm", "LeakyReLU", "Linear",
           "Module", "Parameter", "RMSNorm", "ReLU", "Sequential", "SiLU", "Sigmoid", "Softplus", "Tanh",
           "cross_entropy", "mse_loss"]
