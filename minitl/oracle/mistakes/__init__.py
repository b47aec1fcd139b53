"""Mistakes that people make, each as something to compute: what a wrong implementation would give.

`tape` runs a step with one mistake in it; `sums`, `norms`, `activations` and `rest` list the mistakes of its
ops; `results` changes the expected results themselves, `codes` packed ones, `shapes` tells of wrong shapes,
`regions` where wrong elements lie that no mistake explains.
"""
