"""The arithmetic: plain loops that define every result, and kernels that give the same bits fast."""
