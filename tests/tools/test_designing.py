"""`design_cluster` as people ask for it: words in, a view and an answer out, in both languages."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.base import Context, Result
from tools.designing import DesignCluster, many
from tools.linking.quantities import Measure, count_of, dollars_of, read_quantity, watts_of
from tools.resolve import Question, Ready, Unfit, link
from tools.views import Facts

UTTERANCES = Path(__file__).parents[2] / "datasets" / "utterances"
MEASURES: dict[str, Measure] = {
    "model_parameters": "count",
    "tokens": "count",
    "budget": "money",
    "power_limit": "power",
}


async def asked(ctx: Context, **raw: Any) -> Result:
    linked = await link(DesignCluster(), raw, ctx)
    assert isinstance(linked, Ready), linked
    return await DesignCluster().run(ctx, linked.args)


def values(result: Result) -> str:
    assert isinstance(result.view, Facts)
    return "\n".join(f"{label}: {cell.text}" for label, cell in result.view.facts)


async def test_a_published_run_is_sized_in_words(ctx: Context) -> None:
    result = await asked(ctx, goal="pretraining", model_parameters="70B", tokens="2 trillion", gpu_model="A100")
    best: Any = result.data["best"]
    assert best["gpu_hours"] == pytest.approx(1.72e6, rel=0.25)
    assert result.answer.startswith(f"Training 70B parameters on 2T tokens takes {best['gpus']:,} A100-80G GPUs")
    assert f"{many(best['gpu_hours'])} GPU hours" in result.answer
    for part in ("Nodes", "Power", "Cost of the run", "Memory", "Network", "Checkpoints", "Assumed", "Instead"):
        assert part in values(result)


async def test_it_answers_in_korean(context: Callable[..., Context]) -> None:
    ctx = context(language="ko")
    result = await asked(ctx, goal="학습", model_parameters="칠십억 개", budget="30억 원", deadline="한 달")
    assert result.answer.startswith("파라미터 7B개 모델을 토큰 140B개로 학습하려면")
    assert "예산: $2.14M, 충분함" in values(result)
    words = re.sub(r"Adam|Llama|PUE", "", values(result) + result.answer)
    assert not re.search(r"\b(the|of|and|takes|GPUs|each)\b", words)


async def test_too_small_a_budget_is_a_clear_no_with_what_it_pays_for(ctx: Context) -> None:
    result = await asked(ctx, goal="train", model_parameters="70b", tokens="2t", budget="$100k")
    assert re.fullmatch(
        r"\$100k is not enough: it takes at least \$\S+\. It would pay for training on about \S+ tokens\.",
        result.answer,
    )
    assert result.data["possible"] is False


async def test_too_little_power_says_how_long_it_would_take(ctx: Context) -> None:
    asking = {"goal": "train", "model_parameters": "180b", "gpu_model": "B200", "deadline": "90 days"}
    result = await asked(ctx, **asking, power_limit="500 kilowatts")
    assert re.match(r"500 kW is not enough: it takes \S+ MW\. Within 500 kW it would take about \d+ d", result.answer)


async def test_a_service_says_what_it_carries(ctx: Context) -> None:
    result = await asked(ctx, goal="serving", model_parameters="8b", requests_per_second=100, gpu_model="h100")
    best: Any = result.data["best"]
    assert best["requests_per_second"] >= 100
    assert result.answer == f"Serving 8B parameters at 100 requests per second takes {best['gpus']} H100 GPUs."


async def test_what_plays_no_part_is_said_to(ctx: Context) -> None:
    served = await asked(ctx, goal="serve", model_parameters="8b", tokens="1t")
    trained = await asked(ctx, goal="train", model_parameters="8b", requests_per_second=5)
    assert "Tokens and a deadline play no part in serving." in values(served)
    assert "The requests per second play no part in training." in values(trained)


async def test_an_unknown_accelerator_is_refused_with_its_neighbours(ctx: Context) -> None:
    result = await asked(ctx, goal="train", model_parameters="8b", gpu_model="H900")
    assert result.status == "refused"
    assert "H900" in result.answer
    assert "H100" in result.answer


async def test_a_hostile_name_stays_a_name(ctx: Context) -> None:
    result = await asked(ctx, goal="train", model_parameters="8b", gpu_model="{0.__class__} [red]" + "x" * 500)
    assert result.status == "refused"
    assert len(result.answer) < 400


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"model_parameters": "lots"}, "lots is not understood as model_parameters; say it like 70b or 1.5t."),
        ({"budget": "much"}, "much is not understood as budget; say it like $200k or 500000 EUR."),
        ({"power_limit": "60"}, "60 is not understood as power_limit; say it like 60kW or 1MW."),
    ],
)
async def test_an_amount_that_is_none_gets_one_clear_sentence(ctx: Context, raw: dict[str, str], said: str) -> None:
    linked = await link(DesignCluster(), {"goal": "train", "model_parameters": "8b"} | raw, ctx)
    assert isinstance(linked, Unfit)
    assert linked.result.answer == said


async def test_without_a_size_it_is_asked_for(ctx: Context) -> None:
    linked = await link(DesignCluster(), {"goal": "train"}, ctx)
    assert isinstance(linked, Question)
    assert linked.argument == "model_parameters"


async def test_without_a_goal_it_is_asked_whether_to_train_or_to_serve(ctx: Context) -> None:
    linked = await link(DesignCluster(), {"model_parameters": "70b"}, ctx)
    assert isinstance(linked, Question)
    assert (linked.text, linked.choices) == ("Is the model to be trained or served?", ["train", "serve"])


# ── amounts ──────────────────────────────────────────────────────────────────────────────────────


def marked() -> Iterator[tuple[str, str, str]]:
    """What other hands marked in the utterances for this tool: words, argument, value."""
    mark = re.compile(r"\[([^\]\[]*)\]\((?:\d\.)?(\w+)(?:=([^)]*))?\)")
    for path in sorted(UTTERANCES.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if json.loads(line).get("tool") == "design_cluster":
                yield from ((said, arg, value or said) for said, arg, value in mark.findall(line) if arg in MEASURES)


def test_amounts_of_the_utterances_are_read_as_they_were_marked() -> None:
    cases = list(marked())
    assert len(cases) > 100
    wrong = [c for c in cases if read_quantity(c[0], MEASURES[c[1]]) != read_quantity(c[2], MEASURES[c[1]])]
    unread = [c for c in cases if read_quantity(c[0], MEASURES[c[1]]) is None]
    assert (wrong, unread) == ([], [])


@pytest.mark.parametrize(
    ("said", "measure", "canonical"),
    [
        ("8.03B", "count", "8.03b"), ("7000000000", "count", "7b"), ("half a trillion", "count", "500b"),
        ("1조 5천억 토큰", "count", "1.5t"), ("칠백억 개", "count", "70b"), ("130-billion", "count", "130b"),
        ("$200k", "money", "200000 USD"), ("2억 원", "money", "200000000 KRW"), ("€1.5m", "money", "1500000 EUR"),
        ("about 3 million dollars", "money", "3000000 USD"), ("900,000", "money", "900000 USD"),
        ("1MW", "power", "1000kW"), ("forty kilowatts", "power", "40kW"), ("60키로와트", "power", "60kW"),
        ("800 W", "power", "0.8kW"),
    ],
)  # fmt: skip
def test_an_amount_is_read(said: str, measure: Measure, canonical: str) -> None:
    assert read_quantity(said, measure) == canonical
    assert read_quantity(canonical, measure) == canonical


@pytest.mark.parametrize("said", ["", "0", "-3b", "lots", "$", "b$", "1e400", "nan", "∞", "12 GB", "9" * 400])
@pytest.mark.parametrize("measure", ["count", "money", "power"])
def test_what_is_no_amount_is_none(said: str, measure: Measure) -> None:
    assert read_quantity(said, measure) is None


@given(st.text(max_size=40), st.sampled_from(["count", "money", "power"]))
def test_any_text_is_read_or_not_but_never_raises(said: str, measure: Measure) -> None:
    found = read_quantity(said, measure)
    back = {"count": count_of, "money": dollars_of, "power": watts_of}[measure]
    assert found is None or back(found) >= 0


@given(st.floats(1e3, 9e15))
def test_a_count_is_written_in_three_digits_and_keeps_its_size(value: float) -> None:
    text = many(value)
    back = float(text.rstrip("TBMk").replace(",", "")) * {"T": 1e12, "B": 1e9, "M": 1e6, "k": 1e3}.get(text[-1], 1)
    assert back == pytest.approx(value, rel=0.006)
    assert len(text) < 8
