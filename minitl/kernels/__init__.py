"""Loops and BLAS calls: arrays in, `out` filled, nothing kept."""
