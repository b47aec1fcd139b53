"""minitl: MobileTL in NumPy and Numba, every retained byte explicit and accounted."""
