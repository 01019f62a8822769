"""layer_norm and rms_norm over the last axis, and their gradients."""
