"""A program with CACTI's interface: it reads what it is asked from a file and appends a line of results."""

import pathlib
import sys

infile = pathlib.Path(sys.argv[sys.argv.index("-infile") + 1])
size = int(infile.read_text().split("-size (bytes) ")[1].split()[0])
with pathlib.Path("runs").open("a") as runs:
    runs.write(f"{size}\n")
if size == 64:
    print("ERROR: no valid tag organizations found")
    sys.exit(1)
print("---------- CACTI (version 7.0 of a test), Uniform Cache Access SRAM Model ----------")
out = pathlib.Path(f"{infile}.out")
if not out.exists():
    out.write_text(
        "Tech node (nm), Access time (ns), Dynamic read energy (nJ), Dynamic write energy (nJ), "
        "Standby leakage per bank(mW), Area (mm2), \n"
    )
with out.open("a") as results:
    results.write(f"32, 0.5, {size}e-6, {2 * size}e-6, {size}e-9, {size}e-6,\n")
