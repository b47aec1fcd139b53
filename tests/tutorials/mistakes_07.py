"""Usual mistakes in the exercises of tutorial 7, by a part of what `check` says to each."""

MISTAKES = {
    "7a": {
        "neither gradient needs y": [("return gate * x", 'kept["y"] = gate * x\n    return kept["y"]')],
        "this is gy alone": [('kept["gate"] * gy', "gy")],
        "gx needs the other factor": [('kept["gate"] * gy', 'kept["x"] * gy')],
        "sum over the channels": [(".sum(axis=3, keepdims=True)", "")],
        "a gradient is a sum over all that use the number": [(".sum(axis=3", ".mean(axis=3")],
        "each position has its own": [("axis=3", "axis=(1, 2)")],
        "keep the axis of the channels": [(", keepdims=True", "")],
        "this sums gy alone": [('gy * kept["x"]', "gy")],
    },
    "7b": {
        "a sum of gy x over H and W": [(".sum(axis=(1, 2), keepdims=True)", ".mean(axis=(1, 2), keepdims=True)")],
        "se.gate.mask tells where": [('g * unpack(kept["se.gate.mask"], g.shape) / 6', "g / 6")],
        "a factor of 6": [("g.shape) / 6", "g.shape)")],
        "se.act.mask tells where": [('g = g * unpack(kept["se.act.mask"], g.shape)', "pass")],
        "a bias is added to every sample": [("g.sum(axis=(0, 1, 2))", "g.mean(axis=(0, 1, 2))")],
        "1 / (H W) of the gradient": [("g / (height * width)", "g")],
        "the one through the gate is missing": [("gate * gy + g / (height * width)", "gate * gy")],
        "the direct one, gate gy, is missing": [
            ("gate * gy + g / (height * width)", "np.broadcast_to(g / (height * width), x.shape)")
        ],
    },
    "7c": {
        "belongs to the input channels of W": [
            ("nhwo,oc,nc->nhwc", "nhwo,oc,no->nhwc"),
            ("gate)\n    ggate", "np.resize(gate, (len(gate), len(w))))\n    ggate"),
        ],
        "gx_n = gy_n (W gate_n)": [('"nhwo,oc,nc->nhwc", gy, matrix, gate', '"nhwo,oc->nhwc", gy, matrix')],
        "the weights are missing": [('"noc,oc->nc", g, matrix', '"noc->nc", g')],
        "do not sum G over n before": [
            ('np.einsum("noc,oc->nc", g, matrix)', "np.broadcast_to((g.sum(axis=0) * matrix).sum(axis=0), gate.shape)")
        ],
        "does not see the gate": [('"noc,oc->nc", g, matrix', '"noc,oc,nc->nc", g, matrix, gate')],
        "gw = sum over n of G_n gate_n": [('"noc,nc->oc", g, gate', '"noc->oc", g')],
        "has to meet its own gate": [('np.einsum("noc,nc->oc", g, gate)', "(g.sum(axis=0) * gate.sum(axis=0))")],
        "a weight serves all samples": [("g, gate)", "g, gate) / len(x)")],
    },
}
