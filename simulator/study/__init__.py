"""Studies: the one place that ties reader, mapper, engine and report together."""

from simulator.study.run import gemm, run, run_workload

__all__ = ["gemm", "run", "run_workload"]
