"""Steps timed, and their memory measured, beside PyTorch's."""
