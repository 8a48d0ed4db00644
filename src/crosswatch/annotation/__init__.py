"""From an expert's sparse notes to a box, a class and a mask."""
