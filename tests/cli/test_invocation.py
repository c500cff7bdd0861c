"""The command line: options, mistakes, and how a task ends."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import BuilderError
from cli.command import Command, command_at, names
from cli.invocation import as_task, explained, with_names
from cli.output import ended
from tasks import GROUPS

ROOT = Path(__file__).parents[2]
COMMANDS = {name: command_at(place) for name, place in names(GROUPS).items()}


def invoke(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "invoke"), *words], capture_output=True, text=True, check=False
    )


def test_the_list_shows_every_task_once_and_below_its_group() -> None:
    shown = invoke("--list").stdout
    for title, places in GROUPS.items():
        _, _, below = shown.partition(f"\n{title}\n")
        for name in names({title: places}):
            assert f"  {name} " in below.partition("\n\n")[0]
            assert shown.count(f"  {name} ") == 1


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda c: c.body.__name__)
def test_every_task_and_every_option_is_explained(command) -> None:
    assert inspect.getdoc(command.body)
    options = set(inspect.signature(command.body).parameters) - {"remainder"}
    assert options == {name.replace("-", "_") for name in command.help}


def test_no_option_has_a_short_form_that_another_task_uses_otherwise() -> None:
    for command in COMMANDS.values():
        for argument in as_task(command).get_arguments():
            assert all(len(name) > 1 for name in argument.names)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "p.yaml"], ["run", "--file", "p.yaml"]),
        (["run", "p.yaml", "--jobs", "3"], ["run", "--file", "p.yaml", "--jobs", "3"]),
        (["run", "--jobs", "3"], ["run", "--jobs", "3"]),
        (["build-images", "base,train"], ["build-images", "--targets", "base,train"]),
        (["explain", "train"], ["explain", "train"]),
        (["--list"], ["--list"]),
        (
            ["test-stage", "a", "--", "-k", "run or build-images", "run", "b"],
            ["test-stage", "a", "--", "-k", "'run or build-images'", "run", "b"],
        ),
    ],
)
def test_an_optional_argument_needs_no_name(words: list[str], expected: list[str]) -> None:
    assert with_names(words, COMMANDS) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["buld-images"], "did you mean build-images?"),
        (["build-images", "--target", "x"], "did you mean --targets?"),
        (["gc", "--keep-days", "x"], "an option wants a number"),
        (["explain"], "did not receive required positional arguments: 'stage'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(words: list[str], message: str) -> None:
    done = invoke(*words)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_with_json_an_error_is_json_too() -> None:
    done = invoke("explain", "nosuch", "--json")
    assert done.returncode == 1
    assert "there is no target 'nosuch'" in json.loads(done.stdout)["error"]
    assert done.stderr.startswith("error: there is no target 'nosuch'")


@pytest.mark.parametrize("words", ["diff --help", "explain -h", "run a.yaml --help", "gc --help"])
def test_help_behind_a_task_explains_it_whatever_it_requires(words: str) -> None:
    behind, before = invoke(*words.split()), invoke("--help", words.partition(" ")[0])
    assert (behind.returncode, behind.stdout, behind.stderr) == (0, before.stdout, "")


def test_help_for_another_program_is_handed_on() -> None:
    words = ["./invoke", "shell", "train", "--", "python", "--help"]
    assert not explained(words, {"shell": Command(print)})


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    for words in ("--list", "--help run", "build-images --json"):
        done = subprocess.run(
            ["bash", "-c", f"{ROOT}/invoke {words} | true"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr


def test_invoke_itself_knows_the_tasks_in_a_checkout_and_from_outside(tmp_path: Path) -> None:
    for folder, words in ((ROOT, []), (tmp_path, ["--search-root", str(ROOT)])):
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *words, "explain", "nosuch"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "there is no target 'nosuch'" in done.stderr


def test_ctrl_c_is_exit_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ending:
        ended(interrupted, as_json=False)
    assert ending.value.code == 130
    assert capsys.readouterr().err == "interrupted; partial output was removed\n"


def test_a_body_can_be_called_without_invoke() -> None:
    script = "import sys, cli.images; print('invoke' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    explain = COMMANDS["explain"]
    with pytest.raises(BuilderError, match="there is no target"):
        explain("nosuch")
