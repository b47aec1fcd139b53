"""Training: data, optimizers, schedules, the loop, and the comparison of methods."""
