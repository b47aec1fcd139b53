"""Usual mistakes in the exercises of tutorial 11, by a part of what `check` says to each."""

MISTAKES = {
    "11a": {
        "the product rule is forgotten": [
            ("slope = np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6))", "slope = np.clip(x + 3, 0, 6) / 6")
        ],
        "the regions are forgotten": [
            ("np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6))", "(2 * x + 3) / 6")
        ],
        "that of the outer side": [("x <= -3", "x < -3"), ("x >= 3", "x > 3")],
        "that is MobileTL's sign rule": [("np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6))", "(x >= 0)")],
        "gx is float64, x is float32": [("gy * slope.astype(x.dtype)", "gy * slope.astype(float)")],
        "that is the slope": [("gy * slope", "slope")],
    },
    "11b": {
        "yours has it in the highest": [
            (
                "parts[:, 0] | parts[:, 1] << 2 | parts[:, 2] << 4 | parts[:, 3] << 6",
                "parts[:, 0] << 6 | parts[:, 1] << 4 | parts[:, 2] << 2 | parts[:, 3]",
            )
        ],
        "a code takes 2 bits": [("<< 2", "<< 1"), ("<< 4", "<< 2"), ("<< 6", "<< 3")],
        "yours are neighbouring channels": [
            ("codes.reshape(-1, codes.shape[-1])", "codes.reshape(-1, 1)"),
            ("parts[:, 3] << 6", "parts[:, 3] << 6\n    return packed.ravel()"),
            ("return parts", "packed = parts"),
        ],
        "the positions left over are lost": [
            ("np.concatenate([flat, zeros])", "flat[: len(flat) // 4 * 4]"),
        ],
    },
    "11c": {
        "as np.allclose does": [
            ("not (abs(got[name] - truth) <= bound[name]).all()", "not np.allclose(got[name], truth)")
        ],
        "an error of 0 is within it": [("<= bound", "< bound")],
        "is missing from got": [
            (
                "if not there or not (abs(got[name] - truth) <= bound[name]).all():",
                "if name in got and (not there or not (abs(got[name] - truth) <= bound[name]).all()):",
            )
        ],
        "has another shape": [
            ("name in got and got[name].shape == truth.shape", "name in got"),
            (
                "(abs(got[name] - truth)",
                "(abs(got[name].reshape(truth.shape) - truth) * (got[name].shape == truth.shape)",
            ),
        ],
        "`error > bound` is False for it": [
            ("not (abs(got[name] - truth) <= bound[name]).all()", "(abs(got[name] - truth) > bound[name]).any()")
        ],
        "compare element by element": [
            ("(abs(got[name] - truth) <= bound[name]).all()", "abs(got[name] - truth).max() <= bound[name].max()")
        ],
        "take the absolute value": [("abs(got[name] - truth)", "(got[name] - truth)")],
        "but not sorted": [("sorted(wrong)", "wrong[::-1] if wrong == sorted(wrong) else wrong")],
    },
}
