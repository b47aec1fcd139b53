"""Activations: each a formula, its kinks and its backward rules as data."""
