"""Nested optimizers."""
