"""From windows and labels to weights: the loop knows tensors, the driver knows Ray."""
