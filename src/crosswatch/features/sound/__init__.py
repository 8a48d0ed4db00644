"""Vectors of sound."""
