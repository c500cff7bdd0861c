"""Claims about checkpoints, locks and the end of a run."""

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
from common import lock, summary, workspace
from common.errors import StageError
from common.stage_io import StageIO


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    folder = tmp_path / "arbeit ö"
    folder.mkdir()
    monkeypatch.setenv("PLATELINE_WORKSPACE", str(folder))
    monkeypatch.setenv("PLATELINE_IMAGE", "localhost/plateline/train@sha256:1")
    return folder


def stage(tmp_path, run, **parameters) -> StageIO:
    source = tmp_path / "input"
    source.mkdir(exist_ok=True)
    if not (source / "a").exists():
        (source / "a").write_text("one")
    artifact = {"name": "tiles", "uri": str(source)}
    out = tmp_path / run
    return StageIO(
        {
            "inputs": {
                "parameterValues": {"workspace_name": "w", "epochs": 3.0, **parameters},
                "artifacts": {"tiles": {"artifacts": [artifact]}},
            },
            "outputs": {
                "outputFile": str(out / "o.json"),
                "artifacts": {"model": {"artifacts": [{"name": "model", "uri": str(out / "m")}]}},
            },
        }
    )


def compute(task):
    def work():
        folder = task.output("model")
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "model.onnx").write_bytes(b"weights")
        task.set_parameter("passed", True)
        task.set_metadata("model", {"auc": 0.5})

    return work


def never():
    raise AssertionError("it computed")


def save(tmp_path, **parameters):
    task = stage(tmp_path, "one", **parameters)
    workspace.with_checkpoint(task, "train", variant="A-D", restore=False, compute=compute(task))
    return task


def restore(tmp_path, **parameters):
    task = stage(tmp_path, "two", checkpoint=True, **parameters)
    workspace.with_checkpoint(task, "train", variant="A-D", restore=True, compute=never)
    return task


def refusal(tmp_path, **parameters) -> str:
    with pytest.raises(StageError) as error:
        restore(tmp_path, **parameters)
    return str(error.value)


def test_a_checkpoint_gives_back_files_parameters_and_metadata(tmp_path):
    save(tmp_path)
    task = restore(tmp_path)
    assert (task.output("model") / "sub" / "model.onnx").read_bytes() == b"weights"
    assert task.output_parameters() == {"passed": True}
    assert task.output_metadata() == {"model": {"auc": 0.5}}


def test_a_second_run_replaces_the_first_and_leaves_nothing_beside_it(tmp_path, root):
    save(tmp_path)
    task = stage(tmp_path, "three")
    workspace.with_checkpoint(task, "train", variant="A-D", restore=False, compute=compute(task))
    assert [p.name for p in (root / "w").iterdir()] == ["train-A-D"]


def test_a_missing_checkpoint_says_so(tmp_path):
    assert "there is no checkpoint at" in refusal(tmp_path)


def test_other_parameters_inputs_or_images_do_not_fit(tmp_path, monkeypatch):
    save(tmp_path)
    assert "epochs = 3.0 and are now 4.0" in refusal(tmp_path, epochs=4.0)
    (tmp_path / "input" / "a").write_text("two")
    assert "its inputs were tiles" in refusal(tmp_path)
    (tmp_path / "input" / "a").write_text("one")
    monkeypatch.setenv("PLATELINE_IMAGE", "localhost/plateline/train@sha256:2")
    assert "its image were" in refusal(tmp_path)


def test_one_changed_byte_is_noticed(tmp_path, root):
    save(tmp_path)
    (root / "w/train-A-D/outputs/model/sub/model.onnx").write_bytes(b"weightS")
    assert "was changed after it was saved (model/sub/model.onnx)" in refusal(tmp_path)


def test_a_damaged_manifest_is_an_error(tmp_path, root):
    save(tmp_path)
    path = root / "w/train-A-D/manifest.json"
    path.write_text(path.read_text()[:50])
    assert "cannot read the checkpoint" in refusal(tmp_path)


def test_a_stage_that_fails_keeps_the_older_checkpoint_and_frees_the_lock(tmp_path, root):
    save(tmp_path)

    def fail():
        raise StageError("no")

    with pytest.raises(StageError, match="no"):
        workspace.with_checkpoint(
            stage(tmp_path, "three"), "train", variant="A-D", restore=False, compute=fail
        )
    restore(tmp_path)
    assert not list((root / "w").glob(".*"))


HOLDER = """
import os, sys, time
from pathlib import Path
from common import lock
lock._BEAT = 0.05
with lock.lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_run(folder, name="2026-a (process 77)"):
    """Run a process that holds the lock until it is told to end, or killed."""
    env = {**os.environ, "PLATELINE_RUN": name}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as running:  # fmt: skip
        assert running.stdout.readline() == "held\n"
        yield running
        running.kill()


def test_of_two_runs_at_once_the_second_is_refused_and_told_who_the_first_is(tmp_path, root):
    with another_run(root / "w" / "train-A-D") as running:
        with pytest.raises(StageError, match=r"2026-a \(process 77\) on .* for 0 minutes"):
            save(tmp_path)
        running.communicate("")
    save(tmp_path)
    restore(tmp_path)


def test_a_run_without_a_name_is_told_by_its_process(tmp_path, root):
    running = another_run(root / "w" / "train-A-D", "")
    with running as process, pytest.raises(StageError, match=f"process {process.pid} on "):
        save(tmp_path)


def test_a_number_of_a_process_in_another_container_is_not_taken_for_one_of_this(tmp_path, root):
    """Every container counts its own: a number that is free here may well be alive there."""
    path = root / "w" / ".train-A-D.lock"
    with another_run(root / "w" / "train-A-D"):
        owner = json.loads(path.read_text())
        path.write_text(json.dumps({**owner, "pid": 2**22 + 1}))
        os.utime(path, (1, 1))
        with pytest.raises(StageError, match="another run writes"):
            save(tmp_path)


def test_a_killed_run_leaves_nothing_that_the_next_one_trusts(tmp_path, root):
    save(tmp_path)
    with another_run(root / "w" / "train-A-D") as running:
        half = root / "w" / ".train-A-D.new"
        (half / "outputs").mkdir(parents=True)
        (half / "manifest.json").write_text("{}")
        running.kill()
        running.wait()
    restore(tmp_path)  # the older one, whole
    again = stage(tmp_path, "three")
    workspace.with_checkpoint(again, "train", variant="A-D", restore=False, compute=compute(again))
    assert not list((root / "w").glob(".*"))


def test_a_lock_file_whose_maker_has_yet_to_lock_it_is_left_to_it(tmp_path, root):
    path = root / "w" / ".train-A-D.lock"
    path.parent.mkdir()
    path.touch()
    with pytest.raises(StageError, match="another run writes"):
        save(tmp_path)
    assert path.read_text() == ""


def test_of_many_that_find_a_dead_ones_lock_one_gets_it(root):
    """Two could remove it one after the other, the second that of the first."""
    path = root / "w" / ".x.lock"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": 1, "since": 0}))
    os.utime(path, (1, 1))
    code = HOLDER.replace("    sys.stdin.read()", "    sys.stdin.read(); ours = True")
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(root / "w/x")], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(6)
    ]  # fmt: skip
    said = [run.stdout.readline() for run in runs]
    for run in runs:
        run.communicate("")
    assert said.count("held\n") == 1


def test_a_silent_host_is_taken_over_and_told_when_it_wakes(tmp_path, root):
    path = root / "w" / ".train-A-D.lock"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": 0}))
    with pytest.raises(StageError, match="process 1 on elsewhere"):
        save(tmp_path)
    os.utime(path, (1, 1))
    save(tmp_path)
    with lock.lock(root / "w" / "x") as held:
        (root / "w" / ".x.lock").unlink()
        (root / "w" / ".x.lock").write_text("{}")
        with pytest.raises(StageError, match="another run took over"):
            held.check()
    assert (root / "w" / ".x.lock").read_text() == "{}"


def test_a_workspace_that_cannot_be_written_fails_before_the_work(tmp_path, root):
    (root / "w").write_text("a file where the folder belongs")
    with pytest.raises(StageError, match="cannot be written"):
        workspace.with_checkpoint(stage(tmp_path, "one"), "train", restore=False, compute=never)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; run as another user")
def test_a_read_only_workspace_fails_before_the_work(tmp_path, root):
    root.chmod(0o555)
    with pytest.raises(StageError, match="cannot be written"):
        workspace.with_checkpoint(stage(tmp_path, "one"), "train", restore=False, compute=never)


def test_a_full_disk_leaves_no_half_checkpoint(tmp_path, root, monkeypatch):
    save(tmp_path)

    def full(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace.shutil, "copytree", full)
    task = stage(tmp_path, "three")
    with pytest.raises(StageError, match="No space left on device; make room"):
        workspace.with_checkpoint(
            task, "train", variant="A-D", restore=False, compute=compute(task)
        )
    monkeypatch.undo()
    assert [p.name for p in (root / "w").iterdir()] == ["train-A-D"]


def test_without_a_workspace_it_computes_and_a_checkpoint_is_refused(tmp_path, root):
    task = stage(tmp_path, "one", workspace_name="")
    workspace.with_checkpoint(task, "train", restore=False, compute=compute(task))
    assert list(root.iterdir()) == []
    assert "workspace_name is empty" in refusal(tmp_path, workspace_name="")


@pytest.mark.parametrize("name", ["..", "a/b", "/etc", "a..b"])
def test_a_workspace_name_cannot_leave_the_volume(tmp_path, name):
    with pytest.raises(StageError, match="cannot name a folder"):
        save(tmp_path, workspace_name=name)


def test_the_summary_tells_state_and_error():
    status = {"state": "FAILED", "pipelineTaskName": "run", "error": {"code": 9, "message": "oh"}}
    for given in (status, json.dumps(status)):
        text = summary.describe({"status": given, "plate": "p"})
        assert text.startswith("# Run failed")
        assert "error 9: oh" in text
        assert "- plate: `p`" in text


def ending(tmp_path, **artifacts) -> StageIO:
    return StageIO(
        {
            "inputs": {"parameterValues": {"status": {"state": "COMPLETE", "error": {}}}},
            "outputs": {
                "outputFile": str(tmp_path / "o.json"),
                "artifacts": {
                    name: {"artifacts": [{"name": name, "uri": str(tmp_path / name)}]}
                    for name in ("summary", "executor-logs")
                },
            },
        }
    )


def test_a_stage_writes_and_names_only_the_outputs_that_it_knows(tmp_path):
    """The backend adds an output of its own, which is the launcher's to write."""
    (tmp_path / "executor-logs").write_text("the launcher's")
    task = ending(tmp_path)
    summary.summarise(task)
    task.finish()
    assert (tmp_path / "executor-logs").read_text() == "the launcher's"
    assert (tmp_path / "summary").read_text().startswith("# Run complete")
    assert json.loads((tmp_path / "o.json").read_text())["artifacts"].keys() == {"summary"}


@pytest.mark.parametrize("state", ["COMPLETE", "FAILED"])
def test_the_summary_says_where_the_rest_stands(state):
    text = summary.describe({"status": {"state": state, "error": {}}, "model_type": "m"})
    assert "validate's" in text
    assert "- model_type: `m`" in text
    assert "error" not in text.lower()


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), None, [1, float("nan")], {"a": None}]
)
def test_what_no_backend_can_store_is_refused_at_its_source(tmp_path, value):
    task = stage(tmp_path, "one")
    with pytest.raises(StageError, match="no backend can store"):
        task.set_metadata("model", {"auc": value})
    with pytest.raises(StageError, match="no backend can store"):
        task.set_parameter("auc", value)
