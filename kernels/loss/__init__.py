"""cross_entropy of logits and class labels, and its gradient."""
