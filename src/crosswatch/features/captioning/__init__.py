"""Sentences about pictures, and the table that holds them."""
