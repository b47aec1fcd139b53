"""minitl's own implementation as somebody else's: from a case's inputs to a dictionary of results."""

from __future__ import annotations

import numpy as np

from minitl.arrays import Array
from minitl.oracle import Case
from minitl.oracle.case import kept_name
from minitl.oracle.forms import form_of
from minitl.oracle.make import recipe_of
from minitl.oracle.recipes import run
from minitl.tape import Tape


def step(case: Case, dtype: str, **options: bool) -> dict[str, Array]:
    """Forward and backward of the case in that dtype, in the case's layout; `options` are the tape's."""
    form = form_of(case)
    values = {n: form.taken(n, v) for n, v in case.inputs.items()}
    tape = Tape(**options)
    ran = run(recipe_of(case), values, tape, dtype)
    got = {"output": ran.output.value}
    for record in tape.records:
        for tensor, buffer in record.saved.buffers.items():
            got[kept_name(record.layer, tensor)] = buffer.array.copy()  # a fused backward uses it up
    gradients = tape.backward(ran.output, np.array(values["grad_output"], dtype, order="C"))
    got["grad_input.x"] = next(iter(tape.input_gradients.values()))
    got |= {f"grad_param.{name}": gradient for name, gradient in gradients.items()}
    got |= {f"buffer_after.{name}": p.value for name, p in ran.parameters.items() if p.statistic}
    return {name: form.stored(name, a) for name, a in got.items()}
