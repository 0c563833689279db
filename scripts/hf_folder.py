"""Writes the weights and the tokenizer of a GGUF file as transformers reads them, in f32: `hf_folder.py FILE FOLDER`.

Does nothing where the folder is there. Needs transformers, torch, accelerate and gguf.
"""

import os
import sys
from pathlib import Path

file, folder = map(Path, sys.argv[1:])
if folder.exists():
    sys.exit()
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402: takes seconds

print(f"writing {folder.name} from {file.name}")
made = folder.with_suffix(f".{os.getpid()}")
AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(made)
base = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
# What was read is not quantised any more, but transformers would not write it as long as it is marked so.
base.hf_quantizer = None
if hasattr(base.config, "quantization_config"):
    del base.config.quantization_config
base.save_pretrained(made)
made.rename(folder)
