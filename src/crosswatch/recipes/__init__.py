"""Packaged settings: a recipe says only where it differs from the defaults."""
