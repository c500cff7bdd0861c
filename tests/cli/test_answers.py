"""An answer is given again while nothing that it came from has changed, and never afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli import answers
from tests import task
from tests.builder.registry_in_memory import with_referrers

WORDS = ["build-images", "--json"]
Kept = Callable[[], bool]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of inputs beside a store, long before the clock that `answers` reads."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store/lock").touch()
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "store"))
    later(monkeypatch, 3600)
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "a.py").write_text("one")
    (folder / "result.json").write_text("{}")
    (folder / "package").write_text("package")
    return folder


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move the clock of `answers` on by `seconds`."""
    now = time.time_ns
    monkeypatch.setattr(answers.time, "time_ns", lambda: now() + int(seconds * 1e9))


def keep(folder: Path, **more: object) -> None:
    """Answer WORDS, from a.py, its folder, a file that is not there, and a result."""
    files = [folder, folder / "a.py", folder / "none", folder / "package"]
    answers.begin(WORDS)
    answers.keep(
        "the answer", inputs=map(str, files), results=[str(folder / "result.json")],
        copies={str(folder.parent / "copy"): str(folder / "package")}, note=", unchanged",
    )  # fmt: skip


def kept(folder: Path) -> bool:
    """Keep an answer in the usual way, and tell whether it is given."""
    (folder.parent / "copy").write_text("package")
    keep(folder)
    return answers.given(WORDS)


def next_tick(folder: Path) -> None:
    """Wait until a file that changes now gets another time than one that has changed just before.

    The file systems' clock moves on every few milliseconds.
    """
    probe = folder.parent / "probe"
    probe.touch()
    now = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == now:
        probe.touch()


def test_it_is_given_while_nothing_changed_and_what_it_used_stays_young_for_gc(
    inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(inputs / "result.json", (1, 1))
    assert kept(inputs)
    said = capsys.readouterr()
    assert said.out == "the answer\n"
    assert said.err.endswith(" s, unchanged\n")
    assert (inputs / "result.json").stat().st_mtime > 1
    assert answers.given(WORDS)


def rewritten(folder: Path) -> None:
    """Write as many bytes into the same file, and set its time back."""
    before = (folder / "a.py").stat().st_mtime_ns
    (folder / "a.py").write_text("two")
    os.utime(folder / "a.py", ns=(before, before))


def replaced(folder: Path) -> None:
    """Put another file of the same size, time and mode in its place."""
    before = (folder / "a.py").stat()
    (folder.parent / "new").write_text("two")
    os.utime(folder.parent / "new", ns=(before.st_mtime_ns, before.st_mtime_ns))
    (folder.parent / "new").rename(folder / "a.py")


CHANGES: dict[str, Callable[[Path], object]] = {
    "the same size, its time set back": rewritten,
    "another file of the same size and time": replaced,
    "its mode": lambda folder: (folder / "a.py").chmod(0o755),
    "removed": lambda folder: (folder / "a.py").unlink(),
    "a file added to its folder": lambda folder: (folder / "b.py").touch(),
    "a file that was not there": lambda folder: (folder / "none").touch(),
    "a result of the store": lambda folder: (folder / "result.json").write_text("[]"),
    "a result that is gone": lambda folder: (folder / "result.json").unlink(),
    "the file that it wrote": lambda folder: (folder.parent / "copy").write_text("else"),
    "the file that it wrote is gone": lambda folder: (folder.parent / "copy").unlink(),
    "the store": lambda folder: (folder.parent / "store/lock").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_it_is_not_given_after_a_change(
    inputs: Path, change: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert kept(inputs)
    capsys.readouterr()
    next_tick(inputs)
    change(inputs)
    assert not answers.given(WORDS)
    assert not capsys.readouterr().out


def test_what_changed_just_before_or_meanwhile_may_change_again_unseen_so_nothing_is_kept(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PLATELINE_STORE", str(inputs.parent / "store"))
    assert not kept(inputs)
    # The clock was set back by a day, so that all files are of the future.
    later(monkeypatch, -86400)
    assert not kept(inputs)


def test_nothing_is_kept_where_the_clock_was_set_while_the_task_ran(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.begin(WORDS)
    later(monkeypatch, -60)
    answers.keep("the answer", inputs=[str(inputs / "a.py")], results=[])
    assert not answers.given(WORDS)


def test_only_the_same_words_in_the_same_place_and_environment_are_answered(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kept(inputs)
    assert not answers.given(["build-images"])
    with monkeypatch.context() as other:
        other.setenv("PLATELINE_REGISTRY", "registry.example/p")
        assert not answers.given(WORDS)
    with monkeypatch.context() as other:
        other.chdir(inputs)
        assert not answers.given(WORDS)
    assert answers.given(WORDS)


def test_nothing_is_kept_of_a_task_that_was_not_asked_for_by_itself(inputs: Path) -> None:
    answers._pending.clear()
    answers.keep("the answer", inputs=[], results=[])
    assert not answers.given(WORDS)


def test_no_password_reaches_the_disk(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATELINE_SIGNING_PASSWORD", "secret-word")
    assert kept(inputs)
    (file,) = (inputs.parent / "store/answers").iterdir()
    assert b"secret-word" not in file.read_bytes()


def test_a_damaged_file_is_no_answer(inputs: Path) -> None:
    assert kept(inputs)
    (file,) = (inputs.parent / "store/answers").iterdir()
    data = file.read_bytes()
    for damaged in (data[:-9], data[:50], b"", data.replace(b"the answer", b"another on")):
        file.write_bytes(damaged)
        assert not answers.given(WORDS)


def test_git_is_asked_again_where_an_answer_depends_on_it(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [b"# branch.oid 1\n"]
    monkeypatch.setattr(answers, "git_status", lambda: lambda: said[0])
    answers.begin(WORDS)
    answers.keep("the answer", inputs=[], results=[], git=said[0])
    assert answers.given(WORDS)
    said[0] = b"# branch.oid 2\n"
    assert not answers.given(WORDS)


@contextmanager
def with_image() -> Iterator[tuple[answers.There, Callable[[bool], None]]]:
    """Yield a registry's image as `keep` takes it, and what puts it there or takes it away."""
    digest = "sha256:" + "1" * 64
    with with_referrers() as (host, has, _):

        def put(there: bool) -> None:
            has.pop(digest, None)
            if there:
                has[digest] = b"{}"

        put(True)
        yield (f"{host}/p", False, {"x": digest}), put


def test_a_registry_is_asked_each_time_for_the_images_that_an_answer_names(inputs: Path) -> None:
    with with_image() as (there, put):
        answers.begin(WORDS)
        answers.keep("the answer", inputs=[], results=[], there=there)
        assert answers.given(WORDS)
        put(False)
        assert not answers.given(WORDS)
        put(True)
        assert answers.given(WORDS)
    assert not answers.given(WORDS), "the registry is gone"


PART = ("images", "plateline", 2)


def keep_part(folder: Path) -> None:
    """Keep a part that came from a.py."""
    answers.begin(["compile"])
    answers.keep({"base": "one"}, part=PART, inputs=[str(folder / "a.py")], results=[])


def test_a_part_is_recalled_by_other_tasks_while_what_it_came_from_is_the_same(
    inputs: Path,
) -> None:
    keep_part(inputs)
    answers.begin(["compile", "--gpus", "1"])
    assert answers.recalled(PART) == {"base": "one"}
    assert answers.recalled((*PART, "other")) is None
    rewritten(inputs)
    assert answers.recalled(PART) is None


@pytest.mark.parametrize("recall", [False, True])
def test_an_answer_came_from_all_that_a_part_of_it_came_from(inputs: Path, *, recall: bool) -> None:
    keep_part(inputs)
    if recall:
        answers.begin(WORDS)
        assert answers.recalled(PART)
    words = WORDS if recall else ["compile"]
    answers.keep("the answer", upon=PART, inputs=[], results=[])
    assert answers.given(words)
    rewritten(inputs)
    assert not answers.given(words)


def test_an_answer_upon_a_part_that_is_not_known_to_be_true_now_is_not_kept(inputs: Path) -> None:
    keep_part(inputs)
    answers.begin(WORDS)  # which neither recalls the part nor finds it out
    answers.keep("the answer", upon=PART, inputs=[], results=[])
    assert not answers.given(WORDS)


def test_a_part_is_of_a_registry_that_still_has_its_images(inputs: Path) -> None:
    with with_image() as (there, put):
        answers.begin(WORDS)
        answers.keep({"x": "pin"}, part=PART, inputs=[], results=[], there=there)
        assert answers.recalled(PART) == {"x": "pin"}
        answers.keep("the answer", upon=PART, inputs=[], results=[])
        assert answers.given(WORDS)
        put(False)
        assert answers.recalled(PART) is None
        assert not answers.given(WORDS)


def test_a_compilation_with_another_setting_looks_at_no_image_and_makes_the_same_package(
    tmp_path: Path,
) -> None:
    def run(at_once: int, jobs: int = 2) -> tuple[str, str]:
        words = [task.TASK[0], "-X", "importtime", *task.TASK[1:]]
        asked = ["--pipeline", "plateline-plates", "--plates-at-once", str(at_once)]
        done = subprocess.run(
            [*words, "compile", "--allow-local", *asked, "--jobs", str(jobs)],
            cwd=tmp_path, env=task.environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout, done.stderr

    asked = time.time_ns() % 1_000_000
    for at_once in range(asked, asked + 20):  # the first of them may have read a young file
        text, loaded = run(at_once)
        if "builder.build" not in loaded:
            break
    assert "builder.build" not in loaded
    assert "kfp.compiler" in loaded
    afresh, loaded = run(at_once, time.time_ns() % 1_000_000)
    assert "builder.build" in loaded
    assert afresh == text


def test_a_build_with_nothing_to_do_says_again_what_it_said_and_loads_no_builder(
    tmp_path: Path,
) -> None:
    def run() -> tuple[str, str]:
        words = [task.TASK[0], "-X", "importtime", *task.TASK[1:]]
        done = subprocess.run(
            [*words, "build-images", "--targets", "base", "--json"],
            cwd=tmp_path, env=task.environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout, done.stderr

    first, _ = run()
    for _ in range(20):  # the first of them may have made something, or read a young file
        text, loaded = run()
        if "builder.build" not in loaded:
            break
    assert text == first.replace('"cached": false', '"cached": true')
    assert "builder.build" not in loaded
