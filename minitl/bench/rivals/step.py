"""A training step in PyTorch, ready to be run again and again."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from minitl.arrays import Array
from minitl.bench.cases import Problem
from minitl.bench.rivals.modules import Builder
from minitl.bench.rivals.network import torch_model


class TorchStep:
    """A call runs forward and backward, and leaves the gradients in the tensors."""

    def __init__(self, problem: Problem, form: str, layout: str) -> None:
        builder = Builder(form, layout)
        self.module, self.by_name = torch_model(problem.model, builder), builder.by_name
        self.format = builder.memory_format
        self.x = self._map(problem.images)
        self.gy = None if problem.gy is None else self._map(problem.gy)
        self.output: Tensor | None = None  # of a forward pass alone
        self.labels = None if problem.labels is None else torch.from_numpy(problem.labels)
        if self.gy is not None:
            self.by_name["input"] = self.x.requires_grad_()

    def __call__(self) -> None:
        """One step."""
        if self.labels is None and self.gy is None:
            with torch.inference_mode():
                self.output = self.module(self.x)
            return
        for leaf in self.by_name.values():
            leaf.grad = None
        y = self.module(self.x)
        if self.labels is None:
            y.backward(self.gy)
        else:
            functional.cross_entropy(y, self.labels).backward()

    def gradients(self) -> dict[str, Array]:
        """What the last step left, by minitl's names and in its layout."""
        if self.output is not None:
            return {"output": self.output.numpy()}
        found = {name: leaf.grad for name, leaf in self.by_name.items() if leaf.grad is not None}
        if "input" in found:
            found["input"] = found["input"].permute(0, 2, 3, 1)
        return {name: gradient.numpy() for name, gradient in found.items()}

    def _map(self, array: Array) -> Tensor:
        return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(memory_format=self.format)
