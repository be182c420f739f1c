"""From text to a pipeline: our shape, FastTrack's, and everything that can be wrong with one."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.models import PipelineSpec, StartSession
from cluster.pipelines import templates
from cluster.pipelines.definition import PipelineMistakes, read
from cluster.pipelines.filling import Unfilled, left_out, request
from cluster.pipelines.parameters import chosen

DATA = Path(__file__).parent / "data" / "fasttrack"
DIAMOND = """
name: diamond
description: Four steps.
parameters:
  lr: 0.1
  epochs: {type: integer, default: 3}
  data: {description: which set}
  wide: false
env: {MODE: fast}
steps:
  - {name: fetch, command: "fetch {{ parameters.data }}", cpu: 1, memory: 2g}
  - name: left
    after: [fetch]
    command: train --lr={{ parameters.lr }} "{{ parameters.data }}"
    gpu: "{{ parameters.epochs }}"
    memory: "{{ parameters.epochs }}g"
    time_limit: 90m
    retries: 2
    retry_delay: 30s
    env: {MODE: slow, SET: "{{ parameters.data }}"}
  - {name: right, after: [fetch], command: "true", when: "{{ parameters.wide }}"}
  - {name: join, after: [left, right], command: "true", mounts: ["out"], may_fail: true}
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(PipelineMistakes) as caught:
        read(text)
    return [str(reason.message) for reason in caught.value.reasons]


def asked(spec: PipelineSpec, step: str, **given_: str | float | bool) -> StartSession:
    values, wrong = chosen(spec, given_)
    assert wrong == []
    return request("r-0001", "red", spec, next(s for s in spec.steps if s.name == step), values)


# ── our shape ────────────────────────────────────────────────────────────────────────────────────


def test_a_definition_is_read_with_its_units_types_and_defaults() -> None:
    spec = read(DIAMOND).spec
    assert [(s.name, s.after) for s in spec.steps] == [
        ("fetch", []), ("left", ["fetch"]), ("right", ["fetch"]), ("join", ["left", "right"])
    ]  # fmt: skip
    assert {name: (p.type, p.default) for name, p in spec.parameters.items()} == {
        "lr": ("number", 0.1), "epochs": ("integer", 3), "data": ("text", None), "wide": ("boolean", False)
    }  # fmt: skip
    assert (spec.steps[0].memory, spec.steps[1].time_limit, spec.steps[1].retry_delay) == (2 * 2**30, 5400, 30)
    assert PipelineSpec.model_validate_json(spec.model_dump_json()) == spec


def test_parameters_fill_amounts_and_environment_as_text_and_reach_a_command_by_the_environment_only() -> None:
    op = asked(read(DIAMOND).spec, "left", data="a b; rm -rf ~")
    assert (op.gpu, op.memory, op.time_limit) == (3, 3 * 2**30, 5400)
    assert op.command == 'train --lr="${PARAM_LR}" "${PARAM_DATA}"'
    assert op.env == {
        "MODE": "slow", "SET": "a b; rm -rf ~", "PARAM_LR": "0.1", "PARAM_EPOCHS": "3", "PARAM_WIDE": "false",
        "PARAM_DATA": "a b; rm -rf ~", "HELMSMAN_RUN": "r-0001", "HELMSMAN_PIPELINE": "diamond",
        "HELMSMAN_STEP": "left",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given_", "wrong"),
    [
        ({}, ["The parameter data has no default; say what it is to be."]),
        ({"data": "x", "lrr": 1}, ["diamond has no parameter lrr; did you mean lr?"]),
        ({"data": "x", "epochs": "2.5"}, ["epochs is of type integer; 2.5 is none."]),
        ({"data": "x", "lr": "nan"}, ["lr is of type number; nan is none."]),
        ({"data": "x", "wide": "maybe"}, ["wide is of type boolean; maybe is none."]),
        ({"data": "x", "epochs": 10**400}, ["epochs is too large a number."]),
        ({"data": "x\0"}, ["data is longer than 8000 characters, or holds a zero byte."]),
        ({"data": "x", "epochs": "5", "wide": "True"}, []),
    ],
)
def test_what_a_run_gives_has_to_fit_its_parameters(given_: dict[str, str | float], wrong: list[str]) -> None:
    found = chosen(read(DIAMOND).spec, given_)[1]
    assert [str(reason.message) for reason in found] == wrong


def test_a_parameter_with_choices_takes_none_but_these() -> None:
    spec = read("{name: p, parameters: {s: {choices: [a, b], default: a}}, steps: [{name: x, command: ls}]}").spec
    assert chosen(spec, {"s": "b"}) == ({"s": "b"}, [])
    assert str(chosen(spec, {"s": "c"})[1][0].message) == "s is one of a, b; c is none."


def test_an_amount_that_a_parameter_makes_impossible_is_told_with_its_step() -> None:
    spec = read("{name: p, parameters: {n: 1}, steps: [{name: x, command: ls, cpu: '{{ parameters.n }}'}]}").spec
    with pytest.raises(Unfilled, match="Step x: cpu can't be -2"):
        asked(spec, "x", n=-2)


def test_when_is_true_or_false() -> None:
    spec = read("{name: p, parameters: {w: x}, steps: [{name: x, command: ls, when: '{{ parameters.w }}'}]}").spec
    assert [left_out(spec, spec.steps[0], {"w": w}) for w in ("true", "False", False, True)] == [
        False,
        True,
        True,
        False,
    ]
    with pytest.raises(Unfilled, match="when can't be x"):
        left_out(spec, spec.steps[0], {"w": "x"})


# ── what can be wrong ────────────────────────────────────────────────────────────────────────────


def test_all_mistakes_are_told_at_once_each_with_its_line() -> None:
    text = """name: bad
parameters: {a: 1}
steps:
  - {name: one, command: "echo {{ parameters.aa }}", memory: much}
  - {name: one, command: "true", cpu: -1}
  - {name: two, afer: [one], command: "true"}
  - {name: three, after: [fore], command: "{{ parameters.x-y"}
  - {name: four, after: [five], command: "true", time_limit: soon}
  - {name: six}
"""
    assert mistakes(text) == [
        "Line 4: memory: much is not a size; write for example 64g.",
        "Line 4: there is no parameter aa; did you mean a?",
        "Line 5: cpu: -1 can't be used (Input should be greater than 0).",
        "Line 6: there is no key afer; did you mean after?",
        "Line 7: write {{ parameters.name }} with the name of a parameter.",
        "Line 7: three waits for fore, which is no step here; did you mean four?",
        "Line 8: time_limit: soon is not a duration; write for example 90m.",
        "Line 9: step six has no command; it would never end.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "Line 1: a pipeline is a mapping with a name and steps."),
        ("name: x", "Line 1: steps is a list of at least one step."),
        ("name: x\nsteps: []", "Line 2: steps is a list of at least one step."),
        ("steps: [{name: a, command: ls}]", "Line 1: name is missing."),
        ("name: a b\nsteps: [{name: a, command: ls}]", "Line 1: name: a b can't be used"),
        ("name: x\nstps: 1\nsteps: [{name: a, command: ls}]", "Line 2: there is no key stps; did you mean steps?"),
        ("name: x\nname: y\nsteps: [{name: a, command: ls}]", "Line 2: name is given twice."),
        ("name: x\nsteps:\n- {name: a, command: ls}\n- 7", "Line 4: 1 is a mapping."),
        ("name: x\nsteps:\n- {name: a, command: ls}\n- {name: a, command: ls}",
         "Line 4: there is a step a already, in line 3."),
        ("name: x\nparameters: {a-b: 1, a_b: 2}\nsteps: [{name: a, command: ls}]",
         "Line 2: a_b and a-b would both be PARAM_A_B."),
        ("name: x\nparameters: {n: {type: integer, default: many}}\nsteps: [{name: a, command: ls}]",
         "Line 2: many does not fit the parameter n (integer)."),
        ("name: x\nparameters: [n]\nsteps: [{name: a, command: ls}]",
         "Line 2: parameters is a mapping of names to defaults."),
        ("name: [x\nsteps:", "Line 2: this is not YAML"),
        ("a: &a [*a]", "This is not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_sentence(text: str, said: str) -> None:
    assert mistakes(text)[0].startswith(said)


def test_a_circle_is_named() -> None:
    steps = "".join(f"\n- {{name: {a}, after: [{b}], command: ls}}" for a, b in ("ab", "bc", "ca"))
    (said,) = mistakes(f"name: x\nsteps:{steps}\n- {{name: d, command: ls}}")
    around, _, circle = said.rpartition(": ")
    assert around.endswith("these steps wait for each other in a circle")
    assert circle.removesuffix(".") in ("a → b → c → a", "b → c → a → b", "c → a → b → c")


def test_more_than_500_steps_are_too_many_and_500_are_not() -> None:
    def many(n: int) -> str:
        return "name: x\nsteps:" + "".join(f"\n- {{name: s{i}, command: ls}}" for i in range(n))

    assert len(read(many(500)).spec.steps) == 500
    assert mistakes(many(501)) == ["Line 2: 501 steps; at most 500 can be."]


def test_a_text_that_refers_to_itself_without_end_is_refused_soon() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    assert mistakes(bomb) == ["This is not YAML: it has more than 200000 values"]


KEYS = st.sampled_from(
    [
        "name",
        "steps",
        "tasks",
        "parameters",
        "env",
        "after",
        "command",
        "cpu",
        "memory",
        "when",
        "mounts",
        "environment",
        "envs",
        "resources",
        "dependencies",
        "retry",
        "skip",
        "cluster_size",
        "type",
    ]
)
WORDS = st.sampled_from(["a", "b", "{{ parameters.a }}", "{{ parameters.", "1g", "-1", "multi-node", "x:y", "", "a b"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**30) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | WORDS | st.integers(0, 3), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES | st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=3), max_size=6))
@settings(max_examples=300, deadline=None)
def test_whatever_stands_in_a_text_it_is_a_pipeline_or_has_mistakes(data: dict[str, object]) -> None:
    try:
        spec = read(yaml.safe_dump(data, sort_keys=False)).spec
    except PipelineMistakes:
        return
    assert PipelineSpec.model_validate_json(spec.model_dump_json()) == spec


# ── templates ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("command", "shell"),
    [
        ("run {{ parameters.x }}", 'run "${PARAM_X}"'),
        ("run --n={{parameters.x}}", 'run --n="${PARAM_X}"'),
        ('run "a {{ parameters.x }}"', 'run "a ${PARAM_X}"'),
        ("bash -c 'echo {{ parameters.x }}'", "bash -c 'echo ${PARAM_X}'"),
        (r"echo \{{ parameters.x }}", "echo {{ parameters.x }}"),
        ("docker ps --format '{{.Names}}'", "docker ps --format '{{.Names}}'"),
        (r'echo "\"{{ parameters.x }}"', r'echo "\"${PARAM_X}"'),
    ],
)
def test_in_a_command_a_parameter_is_read_from_the_environment(command: str, shell: str) -> None:
    assert templates.for_shell(command) == shell


NASTY = st.text(st.sampled_from("'\"`$();&|<>\\ \n{}*?~ab"), max_size=20)


@given(NASTY, st.sampled_from(["run {{ parameters.x }}", 'run "{{ parameters.x }}"', "run '{{ parameters.x }}'"]))
def test_no_value_ever_stands_in_a_command(value: str, command: str) -> None:
    spec = read(f"name: p\nparameters: {{x: ''}}\nsteps:\n- name: s\n  command: >-\n    {command}").spec
    op = asked(spec, "s", x=value)
    assert op.command == templates.for_shell(command)
    assert op.env["PARAM_X"] == value


def test_a_parameter_in_single_quotes_is_told() -> None:
    notes = read("name: p\nparameters: {x: 1}\nsteps:\n- name: s\n  command: awk '{{ parameters.x }}'").notes
    assert [str(note) for note in notes] == [
        "Step s: x stands in single quotes, which the shell leaves as they are; use PARAM_X."
    ]


# ── FastTrack ────────────────────────────────────────────────────────────────────────────────────


def test_fasttracks_yaml_is_read_with_its_order_amounts_and_places() -> None:
    spec = read((DATA / "tune-and-judge.yaml").read_text()).spec
    fetch, small, large, judge = spec.steps
    assert (spec.name, spec.env) == ("tune-and-judge", {"HF_TOKEN": "", "EPOCHS": "3"})
    assert (fetch.cpu, fetch.memory, fetch.image, fetch.mounts) == (2, 4 * 2**30, "registry.example.com/python:3.11",
                                                                     ["corpus"])  # fmt: skip
    assert fetch.command == "cd /home/work/data\n./fetch.sh"
    assert (small.name, small.when, small.gpu, small.env) == ("tune-small", False, 0.5, {"LR": "1e-4"})
    assert (large.node_count, large.cpu, large.memory, large.gpu) == (2, 8, 32 * 2**30, 8)
    assert (large.retries, large.retry_delay, large.after) == (2, 30, ["fetch"])
    assert (judge.after, judge.may_fail) == (["tune-small", "tune-large"], True)


def test_what_fasttrack_has_and_we_have_not_is_said() -> None:
    notes = [str(note) for note in read((DATA / "tune-and-judge.yaml").read_text()).notes]
    lost = "Not kept, since there is nothing like it here:"
    assert notes == [
        f"{lost} HF_TOKEN: ${{{{ secrets.HF_TOKEN }}}}.",
        f"{lost} ownership.",
        f"{lost} scaling-group nvidia-H100 of fetch, tune small, tune-large.",
        f"{lost} environment.project of fetch.",
        f"{lost} resource_opts of tune small, tune-large.",
        "tune and judge is called tune-and-judge here: a name has no spaces or slashes.",
        "The folder corpus is found at $HELMSMAN_FOLDERS/corpus here, not at data.",
        "tune small is called tune-small here: a name has no spaces or slashes.",
    ]


def test_a_scaling_group_that_is_a_resource_group_here_is_kept() -> None:
    steps = read((DATA / "serve.yaml").read_text(), groups=["default"]).spec.steps
    assert [step.resource_group for step in steps] == ["default", None]


def test_a_task_that_serves_is_left_out_and_said() -> None:
    found = read((DATA / "serve.yaml").read_text())
    assert [(step.name, step.when) for step in found.spec.steps] == [("build", True), ("serve", False)]
    assert found.spec.steps[0].env == {"SOURCES": "docs"}
    assert "The task serve is of type deployment and is left out here." in [str(note) for note in found.notes]


def test_mistakes_in_fasttracks_yaml_have_the_lines_of_the_text() -> None:
    text = (
        "name: x\ntasks:\n- name: a\n  command: ls\n  resources:\n    cpu: 1\n    mem: lots\n  dependencies:\n  - b\n"
    )
    assert mistakes(text) == ["Line 7: memory: lots is not a size; write for example 64g."]
    assert mistakes(text.replace("lots", "2g")) == ["Line 8: a waits for b, which is no step here."]


def test_a_step_with_a_mistake_is_still_one_that_others_can_wait_for() -> None:
    text = "name: x\nsteps:\n- {name: a, command: ls, cpu: much}\n- {name: b, after: [a], command: ls}"
    assert mistakes(text) == ["Line 3: cpu: much is not a number."]
