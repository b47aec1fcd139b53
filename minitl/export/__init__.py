"""Export: a trained network in a form that other programs run."""
