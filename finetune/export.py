"""From a training run to what ships: `python -m finetune.export RUN weights/g`.

    RUN/hf ─► bfloat16 safetensors, config, tokenizer      (Hugging Face form, for training on)
           └► onnx/: the graph and its weights in parts    (what the program loads, without torch)

No file is over 16 MB, since they are kept in git.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
import torch
from onnx.external_data_helper import load_external_data_for_model, set_external_data
from transformers import GemmaForCausalLM

from helmsman.prompts.dialect import BOS, END_TURN, PAD

PART = 15 * 2**20
_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": BOS,
    "eos_token": END_TURN,
    "pad_token": PAD,
    "clean_up_tokenization_spaces": False,
}


def export(trained: Path, out: Path, precision: str = "fp32") -> None:
    """Writes the Hugging Face folder `trained` into `out` in both forms; `precision` is that of the ONNX form."""
    out.mkdir(parents=True, exist_ok=True)
    model = GemmaForCausalLM.from_pretrained(trained, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as scratch:
        exact, built = Path(scratch) / "exact", Path(scratch) / "built"
        model.save_pretrained(exact)
        _add_tokenizer(trained, exact)
        _to_onnx(exact, built, precision)
        _keep(built, out / "onnx")
    model.bfloat16().save_pretrained(out, max_shard_size="15MB")
    _add_tokenizer(trained, out)


def _add_tokenizer(trained: Path, out: Path) -> None:
    shutil.copy(trained / "tokenizer.json", out / "tokenizer.json")
    (out / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER, indent=1) + "\n")


def _to_onnx(model: Path, scratch: Path, precision: str) -> None:
    """By the runtime's own builder, through its command line, which is the part of it that is kept stable."""
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    options = ["-i", str(model), "-o", str(scratch), "-p", precision, "-e", "cpu", "-c", str(scratch / "cache")]
    done = subprocess.run([*builder, *options], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the ONNX builder failed on {model}: {done.stderr[-2000:]}")


def _keep(scratch: Path, out: Path) -> None:
    """The graph with its weights in parts, and the runtime's settings: one thread, since G is small."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    graph = onnx.load(str(scratch / "model.onnx"), load_external_data=False)
    load_external_data_for_model(graph, str(scratch))
    _split(graph, out)
    settings = json.loads((scratch / "genai_config.json").read_text())
    options = settings["model"]["decoder"]["session_options"]
    options |= {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    (out / "genai_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def _split(graph: onnx.ModelProto, out: Path) -> None:
    part, size = 1, 0
    for tensor in graph.graph.initializer:
        if len(tensor.raw_data) < 1024:
            continue
        if size and size + len(tensor.raw_data) > PART:
            part, size = part + 1, 0
        size += len(tensor.raw_data)
        set_external_data(tensor, f"weights-{part}.bin")
    onnx.save_model(graph, str(out / "model.onnx"))


def main() -> None:
    """Exports a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--precision", default="int8", choices=["fp32", "int8", "int4"])
    given = parser.parse_args()
    export(given.run / "hf", given.out, given.precision)


if __name__ == "__main__":
    main()
