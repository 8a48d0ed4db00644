"""Captions of a batch's pictures, and vectors of its pictures, sound and captions."""
