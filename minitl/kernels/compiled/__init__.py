"""The kernels themselves. Only what computes imports them: Numba takes a while to import."""
