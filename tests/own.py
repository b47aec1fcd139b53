"""minitl's own implementation as somebody else's: from a case's inputs to a dictionary of results."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.oracle import Case, updates
from minitl.oracle.case import kept_name
from minitl.oracle.forms import form_of
from minitl.oracle.make import recipe_of
from minitl.oracle.running import input_gradients, run
from minitl.tape import Tape
from minitl.training.optimizers import SGD, Adam


def step(case: Case, dtype: str, **options: bool) -> dict[str, Array]:
    """Forward and backward of the case in that dtype, in the case's layout; `options` are the tape's."""
    if case.op in updates.ATTRS:
        return _updated(case, dtype)
    form = form_of(case)
    values = {n: form.taken(n, v) for n, v in case.inputs.items()}
    tape = Tape(**options)
    ran = run(recipe_of(case), values, tape, dtype)
    got = {"output": ran.output.value} | {name: var.value for name, var in ran.more.items()}
    for record in tape.records:
        for tensor, buffer in record.saved.buffers.items():
            got[kept_name(record.layer, tensor)] = buffer.array.copy()  # a fused backward uses it up
    gradients = tape.backward(ran.output, np.array(values["grad_output"], dtype, order="C"))
    got |= input_gradients(recipe_of(case), tape.input_gradients)
    got |= {f"grad_param.{name}": gradient for name, gradient in gradients.items()}
    got |= {f"buffer_after.{name}": p.value for name, p in ran.parameters.items() if p.statistic}
    if case.op == "network":
        SGD(case.attrs["lr"], momentum=0.0).step({p.name: p.value for p in ran.parameters.values()}, gradients)
        got |= {f"param_after.{name}": p.value for name, p in ran.parameters.items() if not p.statistic}
    return {name: form.stored(name, a) for name, a in got.items()}


def _updated(case: Case, dtype: str) -> dict[str, Array]:
    """An optimizer's steps."""
    a, p = case.attrs, case.inputs["input.x"].astype(dtype)
    if case.op == "sgd":
        optimizer: Any = SGD(a["lr"], a["momentum"], a["weight_decay"], nesterov=a["nesterov"], decay_vectors=True)
    else:
        betas = a["beta1"], a["beta2"]
        optimizer = Adam(a["lr"], betas, a["eps"], a["weight_decay"], decay_vectors=True)
    for gradient in case.inputs["input.gradients"].astype(dtype):
        optimizer.step({"p": p}, {"p": gradient})
    state = zip(updates.STATE[case.op], optimizer.state["p"].arrays, strict=False)
    kept = {f"state_after.{name}": array for name, array in state}
    if case.op == "sgd" and not kept:  # without momentum nothing is kept; the velocity is the last step's gradient
        kept = {"state_after.velocity": gradient}
    return {"output": p, **kept}
