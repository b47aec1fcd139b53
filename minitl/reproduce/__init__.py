"""Published figures, and what minitl computes for them."""
