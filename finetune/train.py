"""Trains G from nothing: `python -m finetune.train --out DIR --minutes 70`. Broken off, the same command goes on.

The schedule follows the clock: the learning rate falls to zero exactly when the minutes are over, on any machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GemmaForCausalLM

from finetune import tokenizer as own_tokenizer
from finetune.batches import Batch, Encoder, batched, chunk
from finetune.data import Generator, authored
from finetune.model import build, loss
from finetune.utterances import read
from helmsman.prompts.codec import Codec


@dataclass(frozen=True)
class Recipe:
    """What a run is made of; times in minutes, `tokens` a step with padding."""

    out: Path
    minutes: float = 70.0
    hidden: int = 256
    layers: int = 6
    inner: int = 768
    tokens: int = 5120
    matrix_rate: float = 0.006
    other_rate: float = 0.003
    dropout: float = 0.05
    seed: int = 1
    threads: int = 2
    save_every: float = 4.0


@dataclass
class Progress:
    """How far a run is; `spent` in minutes over all its sittings."""

    step: int = 0
    chunk: int = 0
    tokens: int = 0
    spent: float = 0.0


class Run:
    """One training run in a folder: its parts, made anew or as the last checkpoint left them."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.progress = Progress()
        self.checkpoint = recipe.out / "checkpoint.pt"
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        self.codec = _codec(recipe.out)
        self.encoder = Encoder(self.codec)
        self.generator = Generator.training()
        self.model = build(self.codec, recipe.hidden, recipe.layers, recipe.inner)
        self.optimizers = _optimizers(self.model, recipe)
        if self.checkpoint.exists():
            self._restore()

    def train(self) -> None:
        """Until the minutes are over; then the model is saved in Hugging Face form."""
        held = self._held_out()
        started, before, saved = time.monotonic(), self.progress.spent, 0.0
        while self.progress.spent < self.recipe.minutes:
            for batch in chunk(self.generator, self.encoder, self.recipe.seed, self.progress.chunk, self.recipe.tokens):
                current = self._step(batch)
                self.progress.spent = before + (time.monotonic() - started) / 60
                if self.progress.step % 100 == 0:
                    self._report(current)
            self.progress.chunk += 1
            if self.progress.spent - saved > self.recipe.save_every:
                saved = self.progress.spent
                self._save()
                print(f"held out: loss {self._held_out_loss(held):.4f}", flush=True)
        self._save()
        print(f"end: held out: loss {self._held_out_loss(held):.4f}", flush=True)

    def _step(self, batch: Batch) -> float:
        self._set_rates()
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(self.model, batch, self.recipe.dropout)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += batch.ids.numel()
        return float(value.detach())

    def _set_rates(self) -> None:
        left = max(0.0, 1 - self.progress.spent / self.recipe.minutes)
        scale = min(1.0, (self.progress.step + 1) / 100) * left
        for optimizer, rate in zip(self.optimizers, (self.recipe.matrix_rate, self.recipe.other_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale

    def _held_out(self) -> list[Batch]:
        dialogues = [d for d in read() if d.held_out]
        return list(batched(map(self.encoder, authored(dialogues, self.generator.names)), self.recipe.tokens))

    def _held_out_loss(self, batches: list[Batch]) -> float:
        self.model.train(False)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            losses = [float(loss(self.model, b)) * float(b.weights.sum()) for b in batches]
        return sum(losses) / sum(float(b.weights.sum()) for b in batches)

    def _report(self, current: float) -> None:
        p = self.progress
        print(f"step {p.step} loss {current:.4f} tokens {p.tokens / 1e6:.2f}M minutes {p.spent:.1f}", flush=True)

    def _save(self) -> None:
        state = {
            "progress": vars(self.progress),
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        aside = self.checkpoint.with_suffix(".new")
        torch.save(state, aside)
        aside.replace(self.checkpoint)
        self.model.save_pretrained(self.recipe.out / "hf")
        self.codec.tokenizer.encode_special_tokens = False
        self.codec.tokenizer.save(str(self.recipe.out / "hf" / "tokenizer.json"))

    def _restore(self) -> None:
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        self.progress = Progress(**state["progress"])
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        print(f"goes on at step {self.progress.step}, after {self.progress.spent:.1f} minutes", flush=True)


def _codec(out: Path) -> Codec:
    """The run's tokenizer; made once, since a model is worth nothing under another."""
    path = out / "tokenizer.json"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        own_tokenizer.train(d for d in read() if not d.held_out).save(str(path))
    return Codec(Tokenizer.from_file(str(path)))


def _optimizers(model: GemmaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    other = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(inner, lr=recipe.matrix_rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(other, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def main() -> None:
    """Reads the recipe from the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer, checkpoints and the model")
    for name, kind in (
        ("minutes", float),
        ("hidden", int),
        ("layers", int),
        ("inner", int),
        ("tokens", int),
        ("seed", int),
        ("threads", int),
        ("dropout", float),
        ("matrix-rate", float),
        ("other-rate", float),
    ):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Recipe, name.replace("-", "_")))
    Run(Recipe(**vars(parser.parse_args()))).train()


if __name__ == "__main__":
    main()
