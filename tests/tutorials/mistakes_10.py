"""Usual mistakes in the exercises of tutorial 10, by a part of what `check` says to each."""

NO_DIFFERENCE = {"10a": ["high - low > 1.01"]}  # of whole numbers
MISTAKES = {
    "10a": {
        "the answer is 0": [("return 0", "return 1")],
        "no multiple of that of one image": "def largest_batch(peak, budget):\n    return budget // peak(1)",
        "no straight line through two batches": (
            "def largest_batch(peak, budget):\n"
            "    a, b = peak(1), peak(2)\n"
            "    return max(0, (budget - a) // (b - a) + 1) if a <= budget else 0"
        ),
        "One too few": [("peak(1) > budget", "peak(1) >= budget"), ("<= budget", "< budget")],
        "One too many": [("return low", "return low + 1")],
        "the largest power of two that fits": [("while high - low > 1:", "while False:")],
        "double the batch, then halve the gap": [("low, high = high, 2 * high", "low, high = high, high + 1")],
    },
    "10b": {
        "project keeps x, 903,168 bytes, for its weight gradient": [
            ('layer.role == "expand"', 'layer.role in ("expand", "project")')
        ],
        "for its input gradient, shared with depthwise": [
            ('layer.role == "expand"', 'layer.role == "depthwise"'),
            ('rule="band"', 'rule="output"'),
        ],
        "A slope is approximate": [('rule="band"', 'rule="sign"')],
        "It trains nothing": [("layer.height > blocks", "layer.height >= blocks")],
        "not more than 15,648": [('layer.role == "expand"', 'layer.role == "none"')],
        "should be frozen": [("layer.height > blocks", "layer.height > blocks + 1")],
        "a policy returns a LayerPlan": [("Activation) else LayerPlan()", "Activation) else None")],
        "a norm with frozen statistics trains its shift only": [
            ('frozenset({"bias"})', 'frozenset({"weight", "bias"})')
        ],
    },
    "10c": {
        "A peak equal to the budget fits": [("<= budget", "< budget")],
        "It returns the dictionary": [(')["name"]', ")")],
        "The budget is not looked at": [(' if way["peak"] <= budget', "")],
        "exact comes before fewer FLOPs": [('way["exact"], ', "")],
        "yours has more": [('-way["flops"]', 'way["flops"]')],
        "before exactness": [('way["trained"], way["exact"]', 'way["exact"], way["trained"]')],
        "the one that needs least": [('(way["trained"]', '(-way["peak"], way["trained"]')],
        "it should return None": [("return None", "return 'nothing'")],
    },
}
