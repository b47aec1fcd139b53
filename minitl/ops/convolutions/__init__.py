"""Convolutions and the linear layer: sums of products with trained weights."""
