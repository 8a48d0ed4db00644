"""Metrics of arrays, and how sure one may be of them."""
