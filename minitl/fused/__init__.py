"""Several layers as one: the fast path beside the op-by-op one.

`program` reads what the op-by-op path would record and says whether it can be fused; of it `forward` and
`backward` make a `plan`, once, which is played for every batch. `links` is the order in which rows are made, `calls`
the kernels that make them; `excite` is what a squeeze-and-excite's gate is made of; `frozen` plans what is neither
trained nor passed through, depth first. What is kept is what the records say.
"""
