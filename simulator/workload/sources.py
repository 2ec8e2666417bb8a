"""Where the values of a tensor come from: a file, or a distribution and a seed."""

from __future__ import annotations

from dataclasses import dataclass

DISTRIBUTIONS = ("normal", "laplace", "uniform")


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Independent draws of unit scale: N(0, 1), Laplace(0, 1) or U(-1, 1); the tensor's name gives the
    sub-seed."""

    distribution: str
    seed: int = 0
    quality: str = "synthetic"


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a safetensors file; ``quality`` is "real" (trained weights) or "captured" (recorded
    activations)."""

    file: str
    tensor: str
    quality: str = "real"


ValueSource = Synthetic | Stored

NORMAL = Synthetic("normal")
LAPLACE = Synthetic("laplace")
