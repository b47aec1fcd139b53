"""Several layers as one: the fast path beside the op-by-op one.

`program` reads what the op-by-op path would record and says whether it can be fused; `work` is the
order in which rows are made, `calls` the kernels that make them; `forward` and `backward` say what
there is to do, `excite` what a squeeze-and-excite's gate is made of; `frozen` does what is neither trained
nor passed through, depth first. What is kept is what the records say.
"""
