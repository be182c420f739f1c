"""The whole way from data to a model that the program loads, with a tiny model."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GemmaForCausalLM

from finetune.batches import chunk
from finetune.export import export
from finetune.model import loss
from finetune.train import Recipe, Run
from helmsman.models.g import G, OnnxReader
from helmsman.prompts import Turn
from helmsman.prompts.codec import Codec
from helmsman.prompts.dialect import prompt


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    out = tmp_path_factory.mktemp("run")
    return Recipe(out, minutes=0.01, warmup=5, hidden=64, layers=2, inner=64, head=32, tokens=1024, threads=2)


@pytest.fixture(scope="module")
def trained(recipe: Recipe) -> Run:
    """Twenty-five steps, then a run that comes to its end at once: how fast the machine is must not matter."""
    run = Run(replace(recipe, minutes=1e6))
    before = loss_of(run)
    for batches in islice(run.batches(), 25):
        run.step(batches)
    assert loss_of(run) < before - 1
    run.recipe = recipe
    run.progress.spent = recipe.minutes
    run.train()
    return run


def loss_of(run: Run) -> float:
    run.model.train(False)
    with torch.no_grad():
        return float(loss(run.model, chunk(run.generator, run.encoder, 99, 0, 1024)[0]))


def test_training_lowers_the_loss_and_ends_when_its_minutes_are_over(trained: Run) -> None:
    assert trained.progress.step == 25
    assert (trained.recipe.out / "hf" / "model.safetensors").exists()


def test_a_run_that_was_broken_off_goes_on(trained: Run, recipe: Recipe) -> None:
    again = Run(recipe)
    assert again.progress == trained.progress
    assert loss_of(again) == pytest.approx(loss_of(trained), rel=1e-3)


@pytest.fixture(scope="module")
def exported(trained: Run, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("g")
    export(recipe.out / "hf", out)
    return out


def test_what_is_exported_loads_and_answers(exported: Path) -> None:
    answer = G.load(exported).generate([Turn("stop s-7f3a")])
    assert answer.calls
    assert 0 < answer.confidence <= 1


def test_the_exported_graph_says_what_the_trained_model_says(exported: Path, recipe: Recipe) -> None:
    g = G.load(exported)
    ids = Codec.load(exported).encode(prompt([Turn("stop s-7f3a, 그리고 gpu-01을 비워줘")]))
    model = GemmaForCausalLM.from_pretrained(recipe.out / "hf", dtype=torch.float32)
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0, -1].numpy()
    reader = OnnxReader(g.model)
    reader.read(ids[:5])
    np.testing.assert_allclose(reader.read(ids[5:]), wanted, atol=1e-3)


def test_the_export_is_in_hugging_face_form_and_in_small_files(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["GemmaForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert {f.name for f in exported.iterdir()} >= {
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "onnx",
    }
    assert all(f.stat().st_size <= 16 * 2**20 for f in exported.rglob("*") if f.is_file())
