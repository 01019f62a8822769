"""softmax and log_softmax along an axis, and their gradients."""
