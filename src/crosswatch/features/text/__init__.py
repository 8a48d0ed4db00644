"""Vectors of captions."""
