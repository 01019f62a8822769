"""Activations, element by element, and their gradients."""
