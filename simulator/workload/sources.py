"""Where the values of a tensor come from: a file, memory, or a distribution and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What a run of the network gave, in the tensor's shape, float32."""

    array: NDArray[np.float32]
    quality: str = "captured"


ValueSource = Synthetic | Stored | Held

NORMAL = Synthetic("normal")
LAPLACE = Synthetic("laplace")
