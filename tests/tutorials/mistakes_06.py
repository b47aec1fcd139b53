"""Usual mistakes in the exercises of tutorial 6, by a part of what `check` says to each."""

MISTAKES = {
    "6a": {
        "98 positions take 13 bytes per channel, not 12.25": [
            ("-(-positions // 8) * e", "positions / 8 * e"),
            ("-(-2 * positions // 8) * e", "2 * positions / 8 * e"),
        ],
        "98 positions take 13 bytes per channel, not 12:": [
            ("-(-positions // 8) * e", "positions // 8 * e"),
            ("-(-2 * positions // 8) * e", "2 * positions // 8 * e"),
        ],
        "not to add a byte": [
            ("-(-positions // 8) * e", "(positions // 8 + 1) * e"),
            ("-(-2 * positions // 8) * e", "(2 * positions // 8 + 1) * e"),
        ],
        "each channel's last byte is filled up": [
            ("-(-positions // 8) * e", "positions * e // 8"),
            ("-(-2 * positions // 8) * e", "2 * positions * e // 8"),
        ],
        "each channel has a last byte of its own": [
            ("-(-positions // 8) * e", "-(-positions * e // 8)"),
            ("-(-2 * positions // 8) * e", "-(-2 * positions * e // 8)"),
        ],
        "codes are packed on their own": [("-(-2 * positions // 8)", "2 * -(-positions // 8)")],
        "behind a stride of 2 the map has half the rows": [('(high + sizes["stride"] - 1) // sizes["stride"]', "high")],
        "7 rows give 4 with stride 2": [('(high + sizes["stride"] - 1) // sizes["stride"]', 'high // sizes["stride"]')],
        "which still has all rows and columns": [('"depthwise.x": 4 * before * e', '"depthwise.x": 4 * after * e')],
        "a batch norm keeps inv_std too": [
            (
                'rows[f"{name}_norm.x_hat"], rows[f"{name}_norm.inv_std"] = 4 * positions * e, 4 * e',
                'rows[f"{name}_norm.x_hat"] = 4 * positions * e',
            ),
            ('rows["project_norm.inv_std"] = 4 * sizes["outputs"]', ""),
        ],
        "the block's last norm uses the batch under either": [
            (
                'rows["project_norm.x_hat"] = 4 * after * sizes["outputs"]',
                'if method == "mobiletl": return rows\n    rows["project_norm.x_hat"] = 4 * after * sizes["outputs"]',
            ),
        ],
        "MobileTL's inner norms train their shift only": [
            (
                '        if method == "mobiletl":\n',
                '        rows[f"{name}_norm.x_hat"], rows[f"{name}_norm.inv_std"] = 4 * positions * e, 4 * e\n'
                '        if method == "mobiletl":\n',
            )
        ],
        "an addition keeps nothing": [
            (
                'rows["project_norm.inv_std"]',
                'if sizes["stride"] == 1 and sizes["inputs"] == sizes["outputs"]: rows["add.x"] = rows["expand.x"]\n'
                '    rows["project_norm.inv_std"]',
            )
        ],
    },
    "6b": {
        "on a map of 1x1 a block of stride 2": [("stride == 1 and h.shape", "h.shape")],
        "the residual is missing.": [("h + x if residual else h", "h")],
        "positions are left out before": [
            ('pointwise(x, p, "expand", kept)', 'pointwise(x[:, ::stride, ::stride], p, "expand", kept)'),
            ('"depthwise", grads, stride', '"depthwise", grads'),
            ('"depthwise", kept, stride', '"depthwise", kept'),
        ],
        "this is the gradient with exact slopes": [("kind, True", "kind, False")],
        "the residual's gy is missing": [("g + gy if residual else g", "g")],
        "gy is added, but there is no residual here": [
            ("g + gy if residual else g", "g + gy if g.shape == gy.shape else g")
        ],
        "you give a gradient of their scale": [
            (
                '"depthwise_norm", grads)',
                '"depthwise_norm", grads)\n    grads["depthwise_norm.weight"] = g.sum(axis=(0, 1, 2))',
            )
        ],
    },
    "6c": {
        "divide it by the lengths of both": [(" / (np.linalg.norm(a) * np.linalg.norm(b))", "")],
        "you divide by the squared lengths": [("np.linalg.norm(a) * np.linalg.norm(b)", "(a @ a) * (b @ b)")],
        "two functions are compared, not two slopes": [("shift_only=True", "shift_only=signs")],
        "your second run has another activation": [('kind="hard_swish"', 'kind="relu6" if signs else "hard_swish"')],
    },
    "6d": {
        "stays. expand_norm still trains its shift": [
            ('{"expand.x", "expand_norm.inv_std"}', '{"expand.x", "expand_norm.inv_std", "expand_act.codes"}')
        ],
        "expand_norm.x_hat is not gone": [
            ('{"expand.x", "expand_norm.inv_std"}', '{"expand.x", "expand_norm.inv_std", "expand_norm.x_hat"}')
        ],
        "one more row goes": [('"expand.x", "expand_norm.inv_std"', '"expand.x"')],
        "MobileTL's expand_norm had no inv_std": [('else {"expand.x"}', 'else {"expand.x", "expand_norm.inv_std"}')],
        "which nobody wants now": [('{"expand.x", "expand_norm.inv_std"}', '{"expand_norm.inv_std"}')],
    },
}
