"""The model store: recipes, cards, models from folders and from a hub that cuts connections and lies."""

import asyncio
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from cluster.core import Core
from cluster.errors import Invalid, NotFound
from cluster.models import Card, CreateFolder, DeployModel, InstallModel, Outcome, Recipe, StoredModel, Undo
from cluster.serving import cards, install, recipes
from cluster.simulator.lab import Lab

CUT = 12 * 2**20
"""`huggingface_hub` writes ten MiB at a time."""
SHA = "0123456789abcdef0123456789abcdef01234567"


def safetensors(tensors: dict[str, list[int]], filling: int = 0) -> bytes:
    header = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(filling)


FILES: dict[str, bytes] = {
    "README.md": b"---\nlicense: apache-2.0\nlanguage: [en, ko]\nbase_model: org/base\n---\n# Tiny\nFor tests.\n",
    "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}).encode(),
    "model.safetensors": safetensors({"a": [10, 20], "b": [7]}, 3_000_000),
    "pytorch_model.bin": b"a pickle",
    "run.py": b"import os",
    "sub/notes.txt": b"notes",
}


@dataclass
class Hub:
    """Enough of the hub's API for `huggingface_hub`: the model's info with its files, and ranged downloads."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    cuts: int = 0
    """So many connections are cut after `CUT` bytes of a large file."""
    lies: set[str] = field(default_factory=set)
    """Files whose bytes are not what the hub says of them."""
    gated: bool = False
    listed: list[str] = field(default_factory=list)
    """Names that are listed on top of those that there are."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    stuck: bool = False
    """Large files do not come before `hold` is set."""

    def info(self) -> bytes:
        def entry(name: str, data: bytes) -> dict[str, Any]:
            digest = hashlib.sha256(data).hexdigest()
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            lfs = {"lfs": {"sha256": digest, "size": len(data), "pointerSize": 130}} if len(data) > 1000 else {}
            return {"rfilename": name, "size": len(data), "blobId": git, **lfs}

        siblings = [entry(name, data) for name, data in self.files.items()]
        siblings += [{"rfilename": name, "size": 1, "blobId": "0" * 40} for name in self.listed]
        return json.dumps({"id": "org/tiny", "modelId": "org/tiny", "sha": SHA, "siblings": siblings}).encode()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path.split("?")[0])
            hub.asked.append((path, self.headers.get("Range", "")))
            if hub.gated:
                self.reply(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
            elif path.startswith("/api/models/org/tiny"):
                self.reply(200, hub.info())
            elif path.startswith("/org/tiny/resolve/"):
                self.file(path.split("/", 5)[5])
            else:
                self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no"})

        do_HEAD = do_GET

        def file(self, name: str) -> None:
            data = hub.files[name]
            told = hashlib.sha256(data).hexdigest()
            if name in hub.lies:
                data = data[:-1] + b"!"
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0] or 0)
            headers = {"ETag": f'"{told}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            large = len(data) > 100_000 and self.command == "GET"
            if large and hub.stuck:
                hub.hold.wait(60)
            if large and hub.cuts:
                hub.cuts -= 1
                self.reply(206 if start else 200, data[start:], headers, cut=CUT)
            else:
                self.reply(206 if start else 200, data[start:], headers)

        def reply(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                self.wfile.write(body[:cut])
                if cut is not None:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr(install, "SPARE", 0)
    yield hub
    hub.hold.set()
    server.shutdown()
    server.server_close()
    thread.join()


async def until(lab: Lab, fits: Callable[[StoredModel], bool], name: str = "tiny", seconds: float = 60) -> StoredModel:
    """Passes, whenever something wakes the core, until the model is so."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await lab.core.schedule_pass()
        model = await lab.boss.model(name)
        if fits(model):
            return model
        try:
            await asyncio.wait_for(lab.core.wake.wait(), 0.2)
        except TimeoutError:
            lab.clock.advance(timedelta(seconds=2))
        lab.core.wake.clear()
    raise AssertionError(f"it stays {model}")


async def over(lab: Lab, name: str = "tiny") -> StoredModel:
    return await until(lab, lambda model: model.state != "installing", name)


def place(core: Core, name: str = "tiny") -> Path:
    return core.data_dir / "models" / name


def done(outcome: Outcome) -> Outcome:
    assert outcome.refused == [], outcome.refused
    return outcome


def said(outcome: Outcome) -> str:
    return " ".join(str(reason.message) for reason in outcome.refused)


# ── from the hub ─────────────────────────────────────────────────────────────────────────────────


async def test_a_model_of_the_hub_comes_in_the_background_and_is_ready_at_once_when_it_is_whole(
    lab: Lab, hub: Hub
) -> None:
    outcome = done(await lab.ann.execute(InstallModel(recipe="https://huggingface.co/org/tiny")))
    assert [str(e.message) for e in outcome.effects] == [
        "org/tiny is fetched from the hub in the background, as model tiny.",
        "Members of project red can deploy tiny.",
    ]
    assert not place(lab.core).exists()
    model = await over(lab)
    assert (model.state, model.reasons, model.runtime) == ("ready", [], "transformers")
    assert model.card.model_dump(exclude={"tags"}) == {
        "parameters": 207,
        "format": "safetensors",
        "license": "apache-2.0",
        "base_model": "org/base",
        "context_length": 2048,
        "languages": ["en", "ko"],
        "text": "# Tiny\nFor tests.",
    }
    names = sorted(str(p.relative_to(place(lab.core))) for p in place(lab.core).rglob("*") if p.is_file())
    assert names == ["README.md", "config.json", "model.safetensors", "sub/notes.txt"]  # no pickle, no program
    assert model.size == sum(len(FILES[name]) for name in names)


async def test_cut_connections_are_gone_on_with_not_begun_anew(lab: Lab, hub: Hub) -> None:
    hub.cuts, large = 2, safetensors({"a": [3]}, 30 * 2**20)
    hub.files["model.safetensors"] = large
    done(await lab.ann.execute(InstallModel(recipe="org/tiny")))
    assert (await over(lab)).state == "ready"
    assert (place(lab.core) / "model.safetensors").read_bytes() == large
    ranges = [asked for path, asked in hub.asked if path.endswith("safetensors") and asked]
    assert ranges[:2] == [f"bytes={10 * 2**20}-", f"bytes={20 * 2**20}-"]


async def test_a_server_that_stops_goes_on_after_its_next_start(lab: Lab, hub: Hub, tmp_path: Path) -> None:
    hub.stuck = True
    done(await lab.ann.execute(InstallModel(recipe="org/tiny")))
    await until(lab, lambda model: model.size > 0)
    await lab.core.installs.close()  # what becomes of it when the process ends
    hub.stuck = False
    hub.hold.set()
    again = await Core.open(tmp_path / "cluster.db", clock=lab.clock, data_dir=tmp_path, name="lab")
    try:
        after = Lab(again, lab.clock, lab.boss, lab.ann, lab.bob, lab.eve)
        for _ in range(200):
            await again.schedule_pass()
            if place(again).is_dir():
                break
            await asyncio.wait([asyncio.create_task(again.wake.wait())], timeout=0.2)
            again.wake.clear()
            after.clock.advance(timedelta(seconds=2))
        assert (await again.models.one(await again.user("ann"), "tiny")).state == "ready"
    finally:
        await again.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"lies": {"model.safetensors"}},
            "model.safetensors is not what the hub says it is; it was removed. Try again.",
        ),
        ({"listed": ["../../evil.json"]}, "org/tiny has a file whose name leads elsewhere: ../../evil.json."),
        ({"gated": True}, "org/tiny is given only to those who have agreed to its licence"),
        ({"files": {"config.json": b"{}", "pytorch_model.bin": b"x"}}, "weights as pickles only"),
        ({"files": {"README.md": b"hello"}}, "no weights in a format that is known"),
    ],
)
async def test_what_can_not_be_had_is_failed_with_its_reason(
    lab: Lab, hub: Hub, change: dict[str, Any], why: str
) -> None:
    for name, value in change.items():
        setattr(hub, name, value)
    done(await lab.ann.execute(InstallModel(recipe="org/tiny")))
    model = await over(lab)
    assert model.state == "failed"
    assert why in str(model.reasons[0].message)
    assert not place(lab.core).exists()
    assert not (lab.core.data_dir / "evil.json").exists()


async def test_a_failed_one_is_tried_again_by_asking_again(lab: Lab, hub: Hub) -> None:
    hub.lies = {"model.safetensors"}
    done(await lab.ann.execute(InstallModel(recipe="org/tiny")))
    assert (await over(lab)).state == "failed"
    hub.lies = set()
    done(await lab.ann.execute(InstallModel(recipe="org/tiny")))
    assert (await over(lab)).state == "ready"
    assert "There is a model tiny already" in said(await lab.ann.execute(InstallModel(recipe="org/tiny")))


async def test_one_that_the_hub_does_not_know_and_a_hub_that_is_not_there(
    lab: Lab, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(await lab.ann.execute(InstallModel(recipe="org/none")))
    assert "The hub has no model org/none" in str((await over(lab, "none")).reasons[0].message)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done(await lab.ann.execute(InstallModel(recipe="org/away")))
    assert "can't be reached from the cluster's server" in str((await over(lab, "away")).reasons[0].message)


async def test_one_that_is_larger_than_the_disk_is_not_begun(
    lab: Lab, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "SPARE", 2**60)
    done(await lab.ann.execute(InstallModel(recipe="org/tiny")))
    model = await over(lab)
    assert (model.state, model.reasons[0].code) == ("failed", "storage_full")
    assert not [path for path, _ in hub.asked if "safetensors" in path]


async def test_one_that_does_not_move_fails_after_ten_minutes(lab: Lab, hub: Hub) -> None:
    hub.stuck = True
    done(await lab.ann.execute(InstallModel(recipe="org/tiny")))
    await until(lab, lambda model: model.size > 0)
    for _ in range(3):
        await lab.core.schedule_pass()
        lab.clock.advance(timedelta(minutes=6))
    await lab.core.schedule_pass()
    model = await lab.boss.model("tiny")
    assert (model.state, str(model.reasons[0].message)) == ("failed", "Nothing came for 10 minutes.")
    assert lab.core.installs._fetches == {}


async def test_taken_back_while_it_comes_nothing_of_it_stays(lab: Lab, hub: Hub) -> None:
    hub.stuck = True
    done(await lab.ann.execute(InstallModel(recipe="org/tiny")))
    await until(lab, lambda model: model.size > 0)
    process = lab.core.installs._fetches["tiny"].process
    done(await lab.ann.execute(Undo()))
    await lab.core.schedule_pass()
    assert process is not None
    assert process.returncode is not None
    with pytest.raises(NotFound):
        await lab.ann.model("tiny")
    await lab.core.installs.load()
    assert [*(lab.core.data_dir / "models" / ".incoming").iterdir()] == []


# ── from folders and by name ─────────────────────────────────────────────────────────────────────


@pytest.fixture
async def folder(lab: Lab) -> Path:
    await lab.ann.execute(CreateFolder(name="mine"))
    place = lab.core.data_dir / "volumes" / "red" / "mine"
    for name in ("README.md", "config.json", "model.safetensors"):
        (place / name).write_bytes(FILES[name])
    return place


async def test_a_folder_is_a_model_at_once_and_its_files_stay_where_they_are(lab: Lab, folder: Path) -> None:
    outcome = done(await lab.ann.execute(InstallModel(recipe="red/mine")))
    assert "is served from red/mine with transformers." in str(outcome.effects[0].message)
    model = await lab.bob.model("mine")
    assert (model.state, model.source, model.card.parameters, model.project) == ("ready", "red/mine", 207, "red")
    done(await lab.ann.execute(Undo()))
    assert (folder / "config.json").exists()
    assert (await lab.ann.models()).total == 0


async def test_who_may_not_see_a_folder_or_project_does_not_see_its_model(lab: Lab, folder: Path) -> None:
    preview = await lab.eve.preview(InstallModel(recipe="red/mine"))
    assert "fetched from the hub" in str(preview.effects[0].message)  # to her there is no such folder
    installed = done(await lab.ann.execute(InstallModel(recipe="mine")))
    assert "mine" not in (await lab.eve.names()).models
    with pytest.raises(NotFound):
        await lab.eve.model("mine")
    assert (await lab.bob.names()).models == ["mine"]
    assert (await lab.bob.execute(Undo(action=installed.audit_id))).refused
    assert (await lab.bob.names()).models == ["mine"]


async def test_an_absolute_directory_is_an_admins(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "local" / "pytorch_model.bin").write_bytes(b"x")
    ask = InstallModel(recipe=str(tmp_path / "local"))
    assert (await lab.ann.execute(ask)).refused[0].code == "not_allowed"
    outcome = done(await lab.boss.execute(ask))
    assert "can run code when they are read (pytorch_model.bin, 1 in all)" in str(outcome.warnings[0])
    assert (await lab.eve.model("local")).card.format == "pickle"  # an admin installs for everybody
    away = await lab.boss.execute(InstallModel(recipe="/nowhere/at/all"))
    assert said(away) == "/nowhere/at/all can't be read: No such file or directory."
    assert "null byte" in said(await lab.boss.execute(InstallModel(recipe="/a\0b/c")))
    assert (await lab.boss.execute(InstallModel(recipe="/"))).refused[0].code == "invalid"


async def test_a_folder_says_itself_how_it_is_served(lab: Lab, folder: Path) -> None:
    (folder / "recipe.yaml").write_text("launch:\n  command: my-server --port $PORT\n  memory: 4g\n  health: /ok\n")
    outcome = done(await lab.ann.execute(InstallModel(recipe="mine")))
    assert "It is served by a command of its own: my-server --port $PORT" in str(outcome.warnings[0])
    launch = await recipe_of(lab, "mine")
    assert (launch.memory, launch.health, launch.env["MODEL_PATH"]) == (4 * 2**30, "/ok", str(folder))


async def test_a_recipe_with_mistakes_names_all_of_them_with_their_lines(lab: Lab, folder: Path) -> None:
    (folder / "recipe.yaml").write_text("runtime: vlm\nlaunch:\n  memory: lots\n  commnd: x\n  gpu: -1\n")
    words = said(await lab.ann.execute(InstallModel(recipe="mine")))
    assert [line.split(":")[0] for line in words.splitlines()[1:]] == ["  line 1", "  line 3", "  line 4", "  line 5"]
    assert "lots is not a size" in words


async def test_a_folder_with_nothing_that_can_be_served_is_told_so(lab: Lab) -> None:
    await lab.ann.execute(CreateFolder(name="empty"))
    assert "there is no config.json" in said(await lab.ann.execute(InstallModel(recipe="empty")))


async def test_g_is_there_at_once_for_everybody_when_an_admin_says_so(lab: Lab) -> None:
    outcome = done(await lab.boss.execute(InstallModel(recipe="g")))
    assert str(outcome.effects[0].message) == "Model g is there at once; g serves it."
    assert (await lab.eve.names()).models == ["g"]
    page = await lab.eve.models(query="KO tool-call")
    assert [(m.name, m.runtime, m.card.text) for m in page.items] == [("g", "g", "")]
    assert (await lab.eve.model("g")).card.text.startswith("Turns a request")


async def test_a_named_recipe_of_the_hub_is_meant_by_its_name_and_by_its_source(lab: Lab) -> None:
    for ref in ("qwen3-8b", "Qwen/Qwen3-8B", "QWEN3-8B"):
        preview = await lab.boss.preview(InstallModel(recipe=ref))
        assert preview.effects[0].target == "qwen3-8b"
    gated = await lab.boss.preview(InstallModel(recipe="google/gemma-3-4b-it"))
    assert "agreed to its licence" in str(gated.warnings[0])


@pytest.mark.parametrize("ref", ["qwen3-8", "../etc", "org/../x", "a/b/c", "-x/y", "org/a--b/c", "http://x/y/z", "."])
async def test_what_is_none_of_all_that_is_refused(lab: Lab, ref: str) -> None:
    outcome = await lab.ann.execute(InstallModel(recipe=ref))
    assert outcome.refused[0].code == "not_found"
    assert ref != "qwen3-8" or outcome.refused[0].candidates[0] == "qwen3-8b"


async def test_a_model_that_an_endpoint_serves_is_not_taken_back(lab: Lab) -> None:
    await lab.node("n1")
    installed = done(await lab.boss.execute(InstallModel(recipe="g")))
    done(await lab.boss.execute(DeployModel(model="g", name="chat", project="red")))
    assert (await lab.boss.model("g")).endpoints == ["chat"]
    assert (await lab.eve.model("g")).endpoints == []  # red's endpoint is none of hers
    refused = await lab.boss.execute(Undo(action=installed.audit_id))
    assert said(refused) == "g is served by chat; delete them first."


async def recipe_of(lab: Lab, name: str) -> Any:
    from cluster.db.tables import ModelRow

    async with lab.core.db.read() as db:
        row = await db.get(ModelRow, name)
        assert row is not None
        return Recipe.model_validate(row.recipe).launch


# ── recipes and cards ────────────────────────────────────────────────────────────────────────────


def test_every_recipe_that_ships_has_a_command_that_quotes_what_it_is_told() -> None:
    book = recipes.shipped()
    assert len(book.models) >= 12
    for recipe in book.models.values():
        for variable in ("MODEL_PATH", "MODEL_NAME", "MODEL_FILE"):
            assert f" ${variable}" not in recipe.launch.command.replace(f'"${variable}"', "")
        assert recipe.launch.health == "/health"


def test_an_admins_recipes_add_to_and_replace_those_that_ship(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "models:\n- {name: mine, runtime: command, launch: {command: 'serve $PORT'}}\n"
        "- {name: qwen3-8b, runtime: vllm, source: /models/qwen, launch: {gpu: 2}}\n"
    )
    book = recipes.book([own])
    assert (book.models["mine"].launch.command, book.models["mine"].source) == ("serve $PORT", None)
    assert (book.models["qwen3-8b"].source, book.models["qwen3-8b"].launch.gpu) == ("/models/qwen", 2)


@pytest.mark.parametrize("text", ["models: [", "- 1", "models: 3", "a: !!python/object:os.system x", "x" * 300_000])
def test_a_file_that_is_no_recipe_is_one_clear_error(tmp_path: Path, text: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)
    with pytest.raises(Invalid, match=r"own\.yaml"):
        recipes.book([own])


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("model-00001-of-00002.safetensors", True),
        ("onnx/model.onnx_data", True),
        ("LICENSE", True),
        ("tokenizer.model", True),
        ("pytorch_model.bin", False),
        ("modeling_x.py", False),
        ("../x.json", False),
        ("/x.json", False),
        ("a//x.json", False),
        ("a\\x.json", False),
        (".gitattributes", False),
        ("x.tar.gz", False),
    ],
)
def test_only_data_is_fetched(name: str, safe: bool) -> None:
    assert cards.is_safe(name) is safe


@pytest.mark.parametrize(
    "header", [b"", b"\xff" * 8, struct.pack("<Q", 3) + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2**62)]
)
def test_a_broken_file_of_weights_is_not_counted(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(header)
    assert cards.look(tmp_path).card.parameters is None


@pytest.mark.parametrize("front", ["license: [", "license: 3", "- a", "language: {a: 1}", "x: " + "[" * 5000])
def test_strange_front_matter_does_not_keep_a_model_out(tmp_path: Path, front: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\nHello")
    (tmp_path / "config.json").write_text("[]")
    assert "Hello" in cards.look(tmp_path).card.text


def test_weights_of_a_quantised_model_are_not_counted_since_several_share_a_number(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors({"a": [4, 4]}))
    assert cards.look(tmp_path).card.parameters == 16
    (tmp_path / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    assert cards.look(tmp_path).card.parameters is None


def test_what_the_files_say_goes_before_what_the_recipe_says() -> None:
    told = Card(license="apache-2.0", tags=["chat"], context_length=1000)
    assert cards.merged(told, Card(context_length=2048)) == Card(
        license="apache-2.0", tags=["chat"], context_length=2048
    )
