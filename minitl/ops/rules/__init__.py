"""Backward rules that convolutions may take besides their exact one, and what these keep of the input."""
