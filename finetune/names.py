"""Fresh names of many shapes, so that the model learns to copy names instead of remembering them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from random import Random

from finetune.utterances import Dialogue
from tools.catalogue import catalogue

CATEGORY = {
    "session": "session", "sessions": "session", "depends_on": "session", "target": "session",
    "node": "node", "user": "user", "project": "group", "resource_group": "group",
    "folder": "folder", "mounts": "folder", "image": "image", "model": "model", "base_model": "model",
    "recipe": "model", "endpoint": "service", "pipeline": "service", "run": "run", "finetune": "session",
    "query": "query", "path": "path", "command": "command", "registry": "registry", "email": "email",
    "action": "audit",
}  # fmt: skip
"""Which sort of name an argument takes; arguments that are missing here keep their words."""

_BY_TOOL = {
    "create_folder": "folder", "clone_folder": "folder", "create_project": "group", "create_user": "user",
    "deploy_model": "service", "start_session": "session", "start_finetune": "session",
}  # fmt: skip

_NODE_STEMS = ["gpu", "node", "n", "a100", "h100", "v100", "l40s", "dgx", "cpu", "rack", "worker", "compute-0", "host", "srv", "b200", "hgx", "노드", "서버"]
_TAGS = ["latest", "dev", "stable", "nightly", "cuda12", "gpu", "base", "slim"]
_HOSTS = ["harbor.{}.example", "registry.{}.io", "{}.azurecr.io", "nvcr.io", "ghcr.io", "docker.io", "quay.io", "reg.{}.local:5000"]
_COMMANDS = [
    "python {}.py", "python3 {}.py --{} {n}", "bash {}.sh", "./{}.sh", "./{} --{}={n}", "sh {}/{}.sh {n}",
    "torchrun --nproc_per_node={n} {}.py", "accelerate launch {}.py", "echo {}", "echo {} {}", "ls -la /{}/{}", "ls {}",
    "sleep {n}", "make {}", "nvidia-smi", "df -h", "cat /{}/{}.log", "tail -n {n} {}.log", "pip install {}",
    "python -m {} --{} {}", "python -c 'print({n})'", "du -sh /{}", "cp {} /{}/", "cargo run --release", "node {}.js",
    "python {}.py --lr {n}e-5 --{}", "date", "hostname", "uv run {}.py", "jupyter lab --port {n}{n}", "wc -l {}.csv",
    "touch {}.txt", "for i in 1 2 3; do echo $i; done", "seq {n}", "while true; do date; sleep {n}; done",
]  # fmt: skip
_ONSETS = ["b", "br", "c", "ch", "d", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "qu", "r", "s", "sh", "st", "t", "tr", "v", "w", "x", "y", "z"]
_NUCLEI = ["a", "e", "i", "o", "u", "ai", "ee", "oo", "ia", "yo", "ei"]
_CODAS = ["", "", "", "n", "r", "l", "s", "k", "m", "x", "nd", "th"]
_SURNAMES = "김이박최정강조윤장임한오서신권황안송류홍전고문손양배백허남심노하곽성차주우구민나"
_GIVEN = "민서준지우현수진영호윤하은도예주연아태경재훈성혜나라빛솔찬결율원희동선규상미정유빈가람온슬기석환철인용"
_SYLLABLES = "가각간갈감강개거건검게격견결경계고곡골공과관광교구국군굴권귀규균그근글금급기길김나난날남내너노녹논농누눈뉴능다단달담당대덕도독돌동두둔드득등디라락란람랑래량러레력련령례로론료루류륜률리린림마막만말망매맥머메면명모목몽무묵문물미민밀바박반발방배백버번범법베벽변별병보복본봉부북분불비빈사산살삼상새색생서석선설섬성세소속손솔송수순술스습승시식신실심아악안암압앙애액야약양어언업에여역연열염영예오옥온올와완왕외요용우운울원월위유육윤율은음응의이인일임입자작장재저적전절점정제조족종좌주죽준중즉증지직진질집차찬참창채책처척천철청체초촌총최추축춘출충취측층치칙친침카코크타탁탄탈탐태토통투트특파판팔패편평포표품풍프피필하학한함합항해행향허험혁현혈협형혜호혼홍화확환활황회획효후훈휘흑희"


class Names:
    """Draws names; its word stock is the parts of the names in the authored requests that are trained on."""

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        self.pools: dict[str, list[str]] = defaultdict(list)
        latin: set[str] = set()
        korean: set[str] = set()
        for category, name in _authored(dialogues):
            self.pools[category].append(name)
            if category not in ("command", "email", "query"):
                latin |= {p for p in re.findall(r"[A-Za-z]{2,}", name)}
                korean |= {p for p in re.findall(r"[가-힣]{2,}", name)}
        self.latin = sorted(latin)
        self.korean = sorted(korean)

    def draw(self, category: str, rng: Random) -> str:
        """A name of that category: three in ten as somebody wrote it, the others made up."""
        pool = self.pools[category]
        if pool and rng.random() < (0.5 if category in ("query", "command", "user") else 0.3):
            return rng.choice(pool)
        maker: Callable[[Random], str] = getattr(self, f"_{category}", self._label)
        return maker(rng)

    def _word(self, rng: Random) -> str:
        roll = rng.random()
        if roll < 0.7:
            word = rng.choice(self.latin)
            return word.lower() if rng.random() < 0.9 else word
        if roll < 0.9:
            return made_up(rng)
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 5)))

    def _hangul(self, rng: Random) -> str:
        if rng.random() < 0.5:
            return rng.choice(self.korean)
        return "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 4)))

    def _label(self, rng: Random) -> str:
        roll = rng.random()
        w, n = self._word, lambda: str(rng.randint(0, 10 ** rng.randint(1, 4)))
        if roll < 0.16:
            return self._korean_label(rng)
        if roll < 0.26:
            return w(rng)
        shapes = [
            lambda: f"{w(rng)}-{w(rng)}", lambda: f"{w(rng)}_{w(rng)}", lambda: f"{w(rng)}-{n()}", lambda: f"{w(rng)}{n()}",
            lambda: f"{w(rng)}-{w(rng)}-{n()}", lambda: f"{w(rng)}_{n()}", lambda: f"{w(rng)}-v{n()[0]}", lambda: f"{n()}-{w(rng)}",
            lambda: f"{w(rng)}.{w(rng)}", lambda: f"{w(rng)}-{w(rng)}-{w(rng)}", lambda: f"{w(rng)}-{chr(97 + rng.randint(0, 25))}",
            lambda: w(rng).capitalize() + w(rng).capitalize(), lambda: f"{w(rng)}-2026-{rng.randint(1, 12):02}", lambda: w(rng).upper(),
        ]  # fmt: skip
        return rng.choice(shapes)()

    def _korean_label(self, rng: Random) -> str:
        k = self._hangul
        shapes = [
            lambda: k(rng), lambda: k(rng) + k(rng), lambda: f"{k(rng)}-{rng.randint(1, 99)}", lambda: f"{k(rng)}_{k(rng)}",
            lambda: f"{k(rng)}{rng.randint(1, 30)}", lambda: f"{self._word(rng)}-{k(rng)}", lambda: f"{k(rng)} {k(rng)}",
        ]  # fmt: skip
        return rng.choice(shapes)()

    def _session(self, rng: Random) -> str:
        roll = rng.random()
        if roll < 0.2:
            return f"s-{rng.getrandbits(16):04x}"
        if roll < 0.28:
            return str(rng.randint(100, 999_999))
        return self._label(rng)

    def _run(self, rng: Random) -> str:
        stem = rng.choice(["r-", "run-", "pr-", "run", "p-", ""])
        return stem + rng.choice([f"{rng.getrandbits(12):03x}", str(rng.randint(1, 9999))]) if rng.random() < 0.6 else self._label(rng)

    def _audit(self, rng: Random) -> str:
        return rng.choice(["a-", "audit-", "act-", "op-", "log-", "#", ""]) + rng.choice(
            [str(rng.randint(1, 9999)), f"{rng.getrandbits(16):04x}"]
        )

    def _node(self, rng: Random) -> str:
        if rng.random() < 0.2:
            return self._label(rng)
        stem = rng.choice([*_NODE_STEMS, self._word(rng), self._word(rng)])
        number = rng.choice([f"{rng.randint(0, 99):02}", str(rng.randint(0, 40)), f"{rng.randint(1, 400):03}", f"{rng.choice('abcdef')}{rng.randint(1, 30)}"])
        ending = f".{self._word(rng)}.internal" if rng.random() < 0.05 else ""
        return f"{stem}{rng.choice(['-', '-', '-', '', '', '_', ' '])}{number}{ending}"

    def _user(self, rng: Random) -> str:
        roll = rng.random()
        if roll < 0.35:
            return rng.choice(_SURNAMES) * rng.randint(0, 1) + "".join(rng.choices(_GIVEN, k=2))
        first = made_up(rng) if rng.random() < 0.6 else self._word(rng)
        shapes = [first, first.capitalize(), f"{first[0]}.{made_up(rng)}", f"{first}{rng.randint(1, 99)}", f"u-{rng.randint(1, 9999)}",
                  f"{first.capitalize()} {made_up(rng).capitalize()}", f"{first}.{made_up(rng)}", f"{first}_{made_up(rng)[:4]}"]  # fmt: skip
        return rng.choice(shapes)

    def _email(self, rng: Random) -> str:
        return f"{made_up(rng)}{rng.choice(['', '.' + made_up(rng)])}@{self._word(rng).lower()}.{rng.choice(['com', 'io', 'example', 'ac.kr', 'org'])}"

    def _folder(self, rng: Random) -> str:
        return self._label(rng)

    def _image(self, rng: Random) -> str:
        base = self._word(rng).lower()
        version = f"{rng.randint(0, 25)}.{rng.randint(0, 12)}" + rng.choice(["", "", f".{rng.randint(0, 9)}"])
        tag = rng.choice([version, version, f"{version}-{rng.choice(_TAGS)}", rng.choice(_TAGS), f"v{rng.randint(1, 30)}"])
        prefix = rng.choice(["", "", "", f"{self._word(rng).lower()}/", f"{self._registry(rng)}/{self._word(rng).lower()}/"])
        return f"{prefix}{base}:{tag}" if rng.random() < 0.9 else prefix + base

    def _model(self, rng: Random) -> str:
        stem = self._word(rng)
        size = f"{rng.choice(['0.5', '1.5', '3', '7', '8', '9', '13', '27', '32', '70'])}b"
        shapes = [f"{stem}-{size}", f"{stem}-{rng.randint(1, 4)}-{size}-it", f"{self._word(rng)}/{stem.capitalize()}-{size.upper()}-Instruct", f"{stem}-v{rng.randint(1, 9)}", f"{stem} {size}"]
        return rng.choice(shapes) if rng.random() < 0.6 else self._label(rng)

    def _query(self, rng: Random) -> str:
        return self._word(rng).lower() if rng.random() < 0.8 else f"{self._word(rng).lower()} {rng.randint(1, 12)}"

    def _path(self, rng: Random) -> str:
        parts = [rng.choice([self._word(rng), str(rng.randint(1, 2026)), f"run-{rng.randint(1, 40)}"]) for _ in range(rng.randint(1, 3))]
        return rng.choice(["", "", "/"]) + "/".join(parts) + rng.choice(["", "", "/", ".csv", ".txt"])

    def _registry(self, rng: Random) -> str:
        return rng.choice(_HOSTS).format(self._word(rng).lower())

    def _command(self, rng: Random) -> str:
        template = rng.choice(_COMMANDS)
        return template.format(*(self._word(rng).lower() for _ in range(4)), n=rng.randint(1, 100))


def made_up(rng: Random) -> str:
    """A pronounceable word that nobody has used."""
    parts = (rng.choice(_ONSETS) + rng.choice(_NUCLEI) + rng.choice(_CODAS) for _ in range(rng.randint(1, 3)))
    return "".join(parts)


def category_of(tool: str, argument: str) -> str | None:
    """The category of names that this argument of this tool takes, None when its words are kept."""
    known = catalogue()[tool].argument(argument) if tool in catalogue() else None
    if known is None or known.kind not in ("name", "text", "list"):
        return None
    if argument == "name":
        return _BY_TOOL.get(tool, "folder")
    return CATEGORY.get(argument)


_DESCRIBED = re.compile(r"(?i)^(the|my|our|that|this|an?|all)\b|'s\b|[가-힣]{2,} (작업|세션|노드|서버|폴더|런)$|\b(job|run|session|node|box|one|folder|nr|no)\b")


def is_plain_name(surface: str) -> bool:
    """False for descriptions ("the old V100 box"), which must keep their words."""
    return not _DESCRIBED.search(surface) and surface.count(" ") <= 3


def _authored(dialogues: Iterable[Dialogue]) -> Iterable[tuple[str, str]]:
    for dialogue in dialogues:
        for r in dialogue.requests:
            for s in r.segments:
                if s.mark is None or s.mark.value is not None or not is_plain_name(s.text):
                    continue
                tool = r.asked_for or r.tools[min(s.mark.call, len(r.tools) - 1)]
                if (category := category_of(tool, s.mark.argument)) is not None:
                    yield category, s.text
