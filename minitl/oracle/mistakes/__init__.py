"""Mistakes that people make, each as something to compute: what a wrong implementation would give.

`tape` runs a step with one mistake in it, `runs` all that can be made in a case; `sums`, `filters`, `norms`,
`activations`, `pools` and `rest` list the mistakes of ops. `results` changes the expected results themselves, `codes`
packed ones, `formats` their precision; `shapes` tells of wrong shapes, `regions` where wrong elements lie that no
mistake explains.
"""
