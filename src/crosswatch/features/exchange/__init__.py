"""Features that others computed, and ours in the form that others read."""
