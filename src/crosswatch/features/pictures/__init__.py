"""Vectors of pictures and of how they move."""
