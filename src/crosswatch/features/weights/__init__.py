"""Where weights come from, and loading nothing but them."""
