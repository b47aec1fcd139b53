"""Several layers as one: the fast path beside the op-by-op one.

`program` reads what the op-by-op path would record and says whether it can be fused; `samples`
is the order of work; `forward` and `backward` do it. What is kept is what the records say.
"""
