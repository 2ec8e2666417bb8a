"""Runs SCALE-Sim 3.0.0 on one GEMM and prints the seconds its simulation took and its compute cycles.

Usage, with an interpreter that has scalesim 3.0.0 (and numpy 1.26, pandas 2.2): scalesim_peer.py M K N SIZE DATAFLOW
"""

import contextlib
import csv
import io
import pathlib
import sys
import tempfile
import time

CONFIG = """
[general]
run_name = peer
[architecture_presets]
ArrayHeight: {size}
ArrayWidth: {size}
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: {dataflow}
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def main() -> None:
    from scalesim.scale_sim import scalesim

    m, k, n, size, dataflow = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        top = pathlib.Path(folder)
        (top / "peer.cfg").write_text(CONFIG.format(size=size, dataflow=dataflow))
        (top / "gemm.csv").write_text(f"Layer,M,N,K,\ngemm,{m},{n},{k},\n")
        (top / "layout.csv").write_text("Layer name" + ",factor" * 20 + ",\ngemm" + ",1" * 20 + ",\n")
        files = {
            "config": str(top / "peer.cfg"),
            "topology": str(top / "gemm.csv"),
            "layout": str(top / "layout.csv"),
        }
        peer = scalesim(save_disk_space=True, verbose=False, input_type_gemm=True, **files)
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            peer.run_scale(top_path=folder)
        seconds = time.perf_counter() - start
        report = next(top.rglob("COMPUTE_REPORT.csv"))
        rows = list(csv.reader(report.open()))
        columns = [name.strip() for name in rows[0]]
        cycles = float(rows[1][columns.index("Total Cycles")])
    print(seconds, int(cycles) + 1)


if __name__ == "__main__":
    main()
