"""The common form of a command line gives the same values without invoke as with it."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.command import Command, command_at, names
from cli.invocation import Program
from cli.line import read, values_of
from tasks import GROUPS

ROOT = Path(__file__).parents[2]
TASKS = names(GROUPS)
# A required argument, optional ones, repeated ones, numbers, flags, and a rest after `--`.
SOME = {"": ("pipeline.run", "inspection.explain", "testing.shell", "testing.test", "audit.audit")}


def by_invoke(words: list[str], groups: Any) -> tuple[str, dict[str, Any]] | None:
    """Return the one task that invoke would run and its arguments, None for all else."""
    program = Program(groups)
    program.create_config()
    try:
        program.parse_core(["./invoke", *words])
        program.parse_collection()
        program.parse_tasks()
    except SystemExit:
        return None
    asked = [argument for argument in program.core[0].args.values() if argument.got_value]
    if asked or len(program.tasks) != 1:
        return None
    body = command_at(names(groups)[program.tasks[0].name]).body
    rest = {"remainder": ""} if "remainder" in inspect.signature(body).parameters else {}
    return program.tasks[0].name, {**program.tasks[0].as_kwargs, **rest}


def options_of(place: str) -> list[str]:
    parameters = inspect.signature(command_at(place).body).parameters
    return [f"--{name.replace('_', '-')}" for name in parameters]


OPTIONS = sorted({option for place in SOME[""] for option in options_of(place)})
VALUES = ["x", "3", "1.5", "", "a=b", "run", " ", "é", "-", "--", "-x", "-1"]
CORE = ["--help", "-h", "--list", "-l", "--echo", "-e", "--config", "-f", "--no-json", "-T"]
WORDS = st.one_of(
    st.sampled_from(OPTIONS),
    st.sampled_from(VALUES),
    st.builds("{}={}".format, st.sampled_from([*OPTIONS, *CORE]), st.sampled_from(VALUES)),
    st.sampled_from([*CORE, *names(SOME)]),
    st.text(max_size=4),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*names(SOME)]), st.lists(WORDS, max_size=6))
def test_what_is_read_without_invoke_is_what_invoke_reads(task: str, words: list[str]) -> None:
    found = read([task, *words], SOME)
    if found:
        command, values = found
        assert by_invoke([task, *words], SOME) == (task, values), command


@st.composite
def common(draw: st.DrawFn) -> list[str]:
    """Draw a task, then a value for some of its arguments, each once, by name."""
    name = draw(st.sampled_from([*names(SOME)]))
    command = command_at(names(SOME)[name])
    words = [name]
    for parameter in draw(st.permutations([*inspect.signature(command.body).parameters.values()])):
        required = parameter.default is inspect.Parameter.empty
        needed = required and parameter.name not in command.repeated
        if parameter.name == "remainder" or not (needed or draw(st.booleans())):
            continue
        option = f"--{parameter.name.replace('_', '-')}"
        if isinstance(parameter.default, bool):
            words.append(option)
            continue
        times = draw(st.integers(1, 3)) if parameter.name in command.repeated else 1
        for _ in range(times):
            value = str(draw(st.integers(0, 99)))
            words += [f"{option}={value}"] if draw(st.booleans()) else [option, value]
    return words


@settings(max_examples=50, deadline=None)
@given(common())
def test_the_common_form_is_read_without_invoke(words: list[str]) -> None:
    found = read(words, SOME)
    assert found
    assert by_invoke(words, SOME) == (words[0], found[1])


@pytest.mark.parametrize("name", TASKS)
def test_every_task_can_be_read_in_the_common_form(name: str) -> None:
    command = command_at(TASKS[name])
    assert command.body.__name__.replace("_", "-") == name
    needed = [
        parameter.name
        for parameter in inspect.signature(command.body).parameters.values()
        if parameter.default is inspect.Parameter.empty and parameter.name not in command.repeated
    ]
    words = [name, *("word" for _ in needed)]
    found = read(words, GROUPS)
    assert found
    assert by_invoke(words, GROUPS) == (name, found[1])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--list"],
        ["--help", "run"],
        ["run", "--help"],
        ["run", "explain"],
        ["explain"],
        ["explain", "train", "base"],
        ["run", "--jobs", "x"],
        ["run", "--jobs"],
        ["run", "--jobs", "2", "--jobs", "3"],
        ["run", "--file", "-x"],
        ["run", "--json=yes"],
        ["test", "--", "-x"],
        ["shell", "train", "-e"],
        ["no-task"],
    ],
)
def test_everything_else_is_left_to_invoke(words: list[str]) -> None:
    assert read(words, SOME) is None


def test_an_argument_of_another_kind_is_left_to_invoke() -> None:
    def pairs(pair: tuple[int, int] = (1, 2), name: str = "") -> None: ...
    def several(many: list[str] = ["a"], name: str = "") -> None: ...  # noqa: B006
    def shown(shown: bool = True, name: str = "") -> None: ...

    assert values_of(["--name", "x"], Command(pairs)) is None
    assert values_of(["--name", "x"], Command(several, repeated=["many"])) is None
    assert values_of(["--name", "x"], Command(shown)) is None


# Each takes as long to load as a build that finds nothing to do takes for a stage.
COSTLY = [
    "invoke", "asyncio", "unittest.mock", "subprocess", "httpx", "installer", "rich", "kfp",
    "cryptography", "yaml", "email", "csv", "packaging.utils",
]  # fmt: skip


@pytest.mark.parametrize(
    "script",
    [
        "sys.argv[1:] = ['store', '--json']; import cli.__main__",
        "import cli.line, tasks, cli.images, builder.build.make",
        # What a push of one changed line needs.
        (
            "import cli.images, builder.build.make, builder.registry.push, builder.registry.cache,"
            "builder.inspect.inventory, builder.signing.named"
        ),
        # What `compile` needs where it has the package already, and git, which is a program.
        (
            "import cli.pipeline, pipeline.definition.pipelines; cli.pipeline.policies.read('');"
            "from pipeline.spec.compile import version; version('kfp-pipeline-spec');"
            "import pipeline.release.materials; del sys.modules['subprocess']"
        ),
    ],
)
def test_a_task_loads_what_it_uses_alone(script: str, tmp_path: Path) -> None:
    script = f"import sys; {script}; print({{*{COSTLY}, 'cli.demo'}} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PLATELINE_STORE": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_wrapper_takes_its_own_modules_in_a_folder_that_has_others(tmp_path: Path) -> None:
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli/__main__.py").write_text("raise SystemExit('the wrong program')")
    done = subprocess.run(
        [str(ROOT / "invoke"), "--version"], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "plateline 0.1.0\n")
