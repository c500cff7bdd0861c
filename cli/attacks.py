"""The task that tries the attacks of docs/security.md and prints which of them were held."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder.errors import BuilderError
from cli import environment
from cli.command import command
from cli.output import ENGINE_HELP, JSON_HELP, ROOT, facts, say

PAGE = ROOT / "docs/security.md"
_ROW = re.compile(r"\| (?P<attack>[^|]+) \| (?P<ends>[^|]+) \| (?P<held>`[^|]+`) \|")
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
# What pytest prints with -rA and --durations=0.
_OUTCOME = re.compile(r"(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S+?\.py)(?:::(\w+))?")
_SECONDS = re.compile(r"([0-9.]+)s (?:setup|call|teardown) +(\S+?\.py)::(\w+)")


@dataclass(frozen=True)
class Attack:
    """A row of the page: what is tried, how it ends, and the tests that try it (file, name)."""

    attack: str
    ends: str
    tests: tuple[tuple[str, str], ...]
    passed: int = 0
    failed: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether every test ran and passed."""
        return bool(self.passed) and not self.failed


def listed(page: Path = PAGE) -> list[Attack]:
    """Return the attacks of the page, in its order.

    Raises BuilderError where a row names a test that is not there.
    """
    text = page.read_text(encoding="utf-8").partition("## Attacks")[2]
    found = []
    for row in _ROW.finditer(text):
        tests = tuple((m[1], m[2]) for m in _TEST.finditer(row["held"]))
        for file, name in tests:
            there = ROOT / file
            if not there.exists() or f"def {name}(" not in there.read_text(encoding="utf-8"):
                raise BuilderError(f"{page}: {row['attack']!r} names {file}::{name}, which is gone")
        if not tests:
            raise BuilderError(f"{page}: {row['attack']!r} names no test as `file.py::test_name`")
        found.append(Attack(row["attack"], row["ends"], tests))
    if not found:
        raise BuilderError(f"{page} has no table of attacks")
    return found


def judged(attacks: Sequence[Attack], printed: Iterable[str]) -> list[Attack]:
    """Return the attacks with what pytest printed about their tests; one that did not run failed.

    A test is known by its file's name and its own: inside an image its folder is another.
    """
    outcomes: dict[tuple[str, str], list[str]] = {}
    seconds: dict[tuple[str, str], float] = {}
    for line in printed:
        if found := _OUTCOME.match(line):
            outcomes.setdefault((Path(found[2]).name, found[3] or ""), []).append(found[1])
        elif took := _SECONDS.match(line):
            key = (Path(took[2]).name, took[3])
            seconds[key] = seconds.get(key, 0.0) + float(took[1])
    done = []
    for attack in attacks:
        keys = [(Path(file).name, name) for file, name in attack.tests]
        done.append(
            replace(
                attack,
                passed=sum(outcomes.get(key, []).count("PASSED") for key in keys),
                failed=tuple(
                    f"{key[0]}::{key[1]}" for key in keys
                    if set(outcomes.get(key, ["not run"])) != {"PASSED"}
                ),
                seconds=sum(seconds.get(key, 0.0) for key in keys),
            )
        )  # fmt: skip
    return done


def _here(tests: Sequence[tuple[str, str]]) -> list[str]:
    words = [f"{file}::{name}" for file, name in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--durations=0", "-vv", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return done.stdout.decode(errors="replace").splitlines()


def _inside(target: str, tests: Sequence[tuple[str, str]], engine: str) -> Iterator[str]:
    """Run tests of a stage in its image, whether they passed before or not."""
    from builder.build.workspace import Workspace
    from builder.sandbox.engines import choose
    from builder.sandbox.process import run
    from builder.store import Store
    from builder.testing import stage_tests

    store, workspace = Store.open(), Workspace.load(ROOT)
    image = stage_tests.with_testing(workspace, store, target)
    folder = workspace.target(target).folder / "tests"
    words = [f"/tests/{(ROOT / file).relative_to(folder)}::{name}" for file, name in tests]
    arguments = ["--rootdir=/tests", "-rA", "--durations=0", "-vv", *words]
    with tempfile.TemporaryFile() as log, store.in_use():
        run(choose(engine, store), stage_tests.pytest(image, folder, arguments), log)
        log.seek(0)
        yield from io.TextIOWrapper(log, errors="replace")


@command(help={"engine": ENGINE_HELP, "json": JSON_HELP})
def attacks(engine: str = "auto", json: bool = False) -> None:
    """Try the attacks of docs/security.md and print which were held; exit with 1 if one was not."""
    from builder.build.workspace import Workspace

    tried = listed()
    environment.development_tools()
    tests = list(dict.fromkeys(test for attack in tried for test in attack.tests))
    here = [test for test in tests if test[0].startswith("tests/")]
    printed = [*_here(here)]
    say(f"{len(here)} tests ran on this machine")
    for target in Workspace.load(ROOT).targets.values():
        below = target.folder.relative_to(ROOT).as_posix() + "/tests/"
        if own := [test for test in tests if test[0].startswith(below)]:
            printed += _inside(target.name, own, engine)
            say(f"{len(own)} tests ran inside the image {target.name}")
    done = judged(tried, printed)
    rows = [("attack", "ends in", "held", "tests", "seconds")]
    rows += [
        (a.attack, a.ends, "yes" if a.held else "NO", str(a.passed), f"{a.seconds:.1f}")
        for a in done
    ]
    found = [
        {"attack": a.attack, "ends": a.ends, "held": a.held, "passed": a.passed,
         "failed": a.failed, "seconds": a.seconds}
        for a in done
    ]  # fmt: skip
    facts({"attacks": found}, rows, as_json=json)
    lost = [a for a in done if not a.held]
    for attack in lost:
        say(f"not held: {attack.attack}: {', '.join(attack.failed)}")
    say(f"{len(done) - len(lost)} of {len(done)} attacks were held")
    if lost:
        raise SystemExit(1)
