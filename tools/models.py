"""The model store: which models there are, what one's card says, and installing one."""

from pydantic import JsonValue

from cluster.models import InstallModel, Operation, Outcome, Page, S, Sentence, StoredModel
from cluster.units import human_size
from tools.base import Arguments, Context, OperationTool, ReadingTool, Result, Risk
from tools.kinds import ModelName, Text
from tools.show import SHOWN, ago, facts, listed, percent, plural, table, told
from tools.views import Cell, Tone

STATES: dict[str, Sentence] = {
    "installing": S("being installed"),
    "ready": S("ready"),
    "failed": S("failed"),
}
_TONES: dict[str, Tone] = {"installing": "warn", "ready": "good", "failed": "bad"}
CARD = 1500
"""Characters of a card's text that are shown."""


class ListModelsArguments(Arguments):
    query: Text | None = None


class ListModels(ReadingTool[ListModelsArguments]):
    """List the models of the store, with their sizes, licences and the endpoints that serve them."""

    name = "list_models"
    arguments = ListModelsArguments
    rows_of = "model"

    async def read(self, ctx: Context, args: ListModelsArguments) -> Result:
        page = await ctx.client.models(query=args.query, limit=100)
        answer = ctx.say(_summary(page, args.query))
        columns = [S("Model"), S("Weights"), S("Size"), S("Licence"), S("Served with"), S("State"), S("Endpoints")]
        rows: list[JsonValue] = [_brief(m) for m in page.items[:SHOWN]]
        shown = page.items[:SHOWN]
        return Result(
            status="done",
            data={"total": page.total, "shown": len(shown), "models": rows},
            view=table(ctx, answer, columns, [_row(ctx, m) for m in shown], total=page.total, right=(1, 2)),
            answer=answer,
            rows=[m.name for m in shown],
            rows_of="model",
        )


def _summary(page: Page[StoredModel], query: str | None) -> Sentence:
    if not page.items:
        return S("No model fits that.") if query else S("No model is installed yet.")
    if page.total == 1:
        return S("1 model: {name}.", name=page.items[0].name)
    return S("{count} models; first is {name}.", count=page.total, name=page.items[0].name)


def _brief(m: StoredModel) -> dict[str, JsonValue]:
    return {"name": m.name, "state": m.state, "parameters": m.card.parameters, "endpoints": list(m.endpoints)}


def _row(ctx: Context, m: StoredModel) -> list[Cell | str]:
    size = human_size(m.size) if m.size else "–"
    return [m.name, weights(m.card.parameters), size, m.card.license or "–", m.runtime, _state(ctx, m),
            listed(m.endpoints) or "–"]  # fmt: skip


def _state(ctx: Context, m: StoredModel) -> Cell:
    word = ctx.say(STATES[m.state])
    if m.progress is not None:
        word = ctx.say(S("{state}, {share} there", state=word, share=percent(m.progress)))
    return Cell(text=word, tone=_TONES[m.state])


def weights(count: int | None) -> str:
    """How many weights, as people write them: "8.2 B", "568 M"; a dash when it is not known."""
    if count is None:
        return "–"
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


class GetModelArguments(Arguments):
    model: ModelName


class GetModel(ReadingTool[GetModelArguments]):
    """Show a model's card: its licence, size, context length, what it is for, and the endpoints that serve it."""

    name = "get_model"
    arguments = GetModelArguments

    async def read(self, ctx: Context, args: GetModelArguments) -> Result:
        m = await ctx.client.model(args.model)
        answer = ctx.say(_said(m))
        return Result(
            status="done",
            data=_data(m),
            view=facts(ctx, answer, _facts(ctx, m)),
            answer=answer,
            rows=list(m.endpoints[:SHOWN]),
            rows_of="endpoint" if m.endpoints else None,
        )


def _said(m: StoredModel) -> Sentence:
    words = {"name": m.name, "source": m.source}
    if m.state == "installing":
        return S("Model {name} is being installed from {source}.", **words)
    if m.state == "failed":
        return S("Model {name} could not be installed from {source}.", **words)
    if not m.endpoints:
        return S("Model {name} is ready; no endpoint serves it.", **words)
    return plural(
        len(m.endpoints),
        S("Model {name} is ready; endpoint {endpoints} serves it.", endpoints=listed(m.endpoints), **words),
        S("Model {name} is ready; endpoints {endpoints} serve it.", endpoints=listed(m.endpoints), **words),
    )


def _data(m: StoredModel) -> dict[str, JsonValue]:
    """The card's text is a stranger's: it is told as data, and cut."""
    return {
        "name": m.name,
        "state": m.state,
        "source": m.source,
        "runtime": m.runtime,
        "size": m.size,
        "endpoints": list(m.endpoints),
        "reasons": [str(reason.message) for reason in m.reasons],
        "card": m.card.model_dump(mode="json", exclude={"text"}, exclude_none=True) | {"text": m.card.text[:CARD]},
    }


def _facts(ctx: Context, m: StoredModel) -> list[tuple[Sentence, Cell | str | None]]:
    card = m.card
    context = ctx.say(S("{count} tokens", count=card.context_length)) if card.context_length else None
    text = card.text[:CARD] + (" …" if len(card.text) > CARD else "")
    return [
        (S("State"), _state(ctx, m)),
        *((S("Why"), Cell(text=told(ctx, reason.message), tone="bad")) for reason in m.reasons),
        (S("From"), m.source),
        (S("For"), m.project or ctx.say(S("everybody"))),
        (S("Installed by"), m.owner),
        (S("Installed"), ctx.say(S("{time} ago", time=ago(ctx, m.created)))),
        (S("Weights"), weights(card.parameters) if card.parameters else None),
        (S("Size"), human_size(m.size) if m.size else None),
        (S("Format"), card.format),
        (S("Licence"), card.license),
        (S("Made from"), card.base_model),
        (S("Context"), context),
        (S("Languages"), listed(card.languages) or None),
        (S("Tags"), listed(card.tags) or None),
        (S("Served with"), m.runtime),
        (S("Endpoints"), listed(m.endpoints) or None),
        (S("Card"), text or None),
    ]


class InstallModelArguments(Arguments):
    recipe: Text


class InstallModelTool(OperationTool[InstallModelArguments]):
    """Install a model into the store: by the name of a recipe, from a folder, or by its hub id (org/name)."""

    name = "install_model"
    risk = Risk.W
    arguments = InstallModelArguments
    rows_of = "model"

    def operation(self, ctx: Context, args: InstallModelArguments) -> Operation:
        return InstallModel(recipe=args.recipe)

    def title(self, ctx: Context, args: InstallModelArguments, outcome: Outcome) -> Sentence:
        return S("Install the model {name}", name=_made(args, outcome))

    def done(self, ctx: Context, args: InstallModelArguments, outcome: Outcome) -> Sentence:
        name = _made(args, outcome)
        if any("in the background" in effect.message.text for effect in outcome.effects):
            return S("The model {name} is being installed; get_model says how far it is.", name=name)
        return S("The model {name} is installed.", name=name)


def _made(args: InstallModelArguments, outcome: Outcome) -> str:
    return outcome.effects[0].target if outcome.effects else args.recipe
