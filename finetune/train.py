"""Trains G from nothing: `python -m finetune.train --out DIR --minutes 70`. Broken off, the same command goes on.

The schedule follows the clock: the learning rate falls to zero exactly when the minutes are over, on any machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GemmaForCausalLM

from finetune import tokenizer as own_tokenizer
from finetune.batches import Batch, Encoder, batched, chunk
from finetune.data import Generator, authored
from finetune.model import build, loss, regularise
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
    head: int = 64
    tokens: int = 5120
    matrix_rate: float = 0.006
    other_rate: float = 0.003
    dropout: float = 0.1
    seed: int = 1
    threads: int = 2
    save_every: float = 4.0
    warmup: int = 100


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
        torch.set_num_threads(1)
        self.workers = ThreadPoolExecutor(recipe.threads, initializer=torch.set_num_threads, initargs=(1,))
        self.codec = _codec(recipe.out)
        self.encoder = Encoder(self.codec)
        self.generator = Generator.training()
        self.model = build(self.codec, recipe.hidden, recipe.layers, recipe.inner, recipe.head)
        regularise(self.model, recipe.dropout)
        self.optimizers = _optimizers(self.model, recipe)
        if self.checkpoint.exists():
            self._restore()
        self.replicas = [self.model, *(_replica(self.model) for _ in range(recipe.threads - 1))]

    def train(self) -> None:
        """Until the minutes are over; then the model is saved in Hugging Face form."""
        started, before, saved = time.monotonic(), self.progress.spent, 0.0
        for batches in self.batches():
            current = self.step(batches)
            self.progress.spent = before + (time.monotonic() - started) / 60
            if self.progress.step % 100 == 0:
                self._report(current)
            if self.progress.spent - saved > self.recipe.save_every:
                saved = self.progress.spent
                self._save()
                print(f"held out: loss {self.held_out_loss():.4f}", flush=True)
        self._save()
        print(f"end: held out: loss {self.held_out_loss():.4f}", flush=True)

    def batches(self) -> Iterator[Sequence[Batch]]:
        """Fresh batches, one for each worker, until the minutes are over."""
        while True:
            r = self.recipe
            batches = chunk(self.generator, self.encoder, r.seed, self.progress.chunk, r.tokens // r.threads)
            for i in range(0, len(batches) - r.threads + 1, r.threads):
                if self.progress.spent >= r.minutes:
                    return
                yield batches[i : i + r.threads]
            self.progress.chunk += 1

    def step(self, batches: Sequence[Batch]) -> float:
        """One step of the optimizers on one batch a worker; returns the mean loss before it."""
        self._set_rates()
        losses = list(self.workers.map(self._gradients, self.replicas, batches))
        for replica in self.replicas[1:]:
            for p, q in zip(self.model.parameters(), replica.parameters(), strict=True):
                if p.grad is not None and q.grad is not None:
                    p.grad += q.grad
                q.grad = None
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        list(self.workers.map(_apply, self.optimizers))
        self.progress.step += 1
        self.progress.tokens += sum(b.ids.numel() for b in batches)
        return sum(losses) / len(losses)

    def _gradients(self, replica: GemmaForCausalLM, batch: Batch) -> float:
        replica.train()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(replica, batch, self.recipe.dropout)
        torch.autograd.backward(value / self.recipe.threads)
        return float(value.detach())

    def _set_rates(self) -> None:
        left = max(0.0, 1 - self.progress.spent / self.recipe.minutes)
        scale = min(1.0, (self.progress.step + 1) / self.recipe.warmup) * left
        for optimizer in self.optimizers:
            matrices = isinstance(optimizer, torch.optim.Muon)
            for group in optimizer.param_groups:
                group["lr"] = (self.recipe.matrix_rate if matrices else self.recipe.other_rate) * scale

    @cached_property
    def held_out(self) -> list[Batch]:
        """Every turn of the held-out dialogues, as it was written."""
        dialogues = [d for d in read() if d.held_out]
        return list(batched(map(self.encoder, authored(dialogues, self.generator.names)), self.recipe.tokens))

    def held_out_loss(self) -> float:
        """The mean loss over the held-out dialogues."""
        batches = self.held_out
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
    shares = [inner[i :: recipe.threads] for i in range(recipe.threads)]
    return [
        *(torch.optim.Muon(s, lr=0.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw") for s in shares),
        torch.optim.AdamW(other, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def _replica(model: GemmaForCausalLM) -> GemmaForCausalLM:
    """The same weights in memory, with gradients of its own: so each worker runs on one core without waiting."""
    twin = copy.deepcopy(model)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        q.data = p.data
    return twin


def _apply(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main() -> None:
    """Reads the recipe from the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer, checkpoints and the model")
    for field in fields(Recipe):
        if field.name != "out":
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    Run(Recipe(**vars(parser.parse_args()))).train()


if __name__ == "__main__":
    main()
