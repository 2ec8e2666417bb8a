"""A cycle-accurate, bit-exact simulator of quantized deep-learning accelerators.

    import simulator as sim
    report = sim.run("minilm-l6", "systolic_ws_32x32")
    report.layers, report.components, report.cycle_stack      # DataFrames
    sim.gemm(128, 384, 1536, arch="systolic_ws_16x16")

Loading is lazy: `import simulator` costs nothing until something is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.arch import Accelerator, accelerator_names, load_accelerator
    from simulator.errors import InputError
    from simulator.formats import dequantize, get_format, quantize
    from simulator.report import Report
    from simulator.study import gemm, run
    from simulator.workload import Workload, load_workload, workload_names

_HOMES = {
    "Accelerator": "simulator.arch",
    "InputError": "simulator.errors",
    "Report": "simulator.report",
    "Workload": "simulator.workload",
    "accelerator_names": "simulator.arch",
    "dequantize": "simulator.formats",
    "gemm": "simulator.study",
    "get_format": "simulator.formats",
    "load_accelerator": "simulator.arch",
    "load_workload": "simulator.workload",
    "quantize": "simulator.formats",
    "run": "simulator.study",
    "workload_names": "simulator.workload",
}

__all__ = [
    "Accelerator",
    "InputError",
    "Report",
    "Workload",
    "accelerator_names",
    "dequantize",
    "gemm",
    "get_format",
    "load_accelerator",
    "load_workload",
    "quantize",
    "run",
    "workload_names",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
