"""Norms: a scale and a shift per channel, of given statistics or of the batch's own."""
