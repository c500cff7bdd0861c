"""`run --engine slurm`: each step a job, with the states, logs, cache and causes of a local run."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kfp import compiler, dsl, kubernetes

from builder.sandbox.process import Mount, Needs, Process
from pipeline.errors import PipelineError
from pipeline.run import runner
from pipeline.run.record import Record
from pipeline.run.slurm import ending, node, submission
from pipeline.run.slurm.array import Arrays, loop_of
from pipeline.run.slurm.engine import Slurm
from pipeline.run.slurm.queue import Queue, Unreachable, Word, words
from tests import slurm_cluster

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if lacks := slurm_cluster.missing():
        pytest.skip(f"{', '.join(lacks)} is missing; apt-get install slurm-wlm munge")
    with slurm_cluster.serve(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def on(cluster, monkeypatch):
    """The cluster, as this process's own; it is idle before and after, and nothing is left."""
    cluster.until_idle()
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    yield cluster
    cluster.until(lambda: cluster.ask("squeue", "--noheader") == "")


@pytest.fixture
def begun(execute, store, tmp_path):
    """Start a pipeline in a thread; `seen` is set when its step runs on the node."""

    def do(function, volumes=None):
        compiler.Compiler().compile(function, str(tmp_path / "begun.yaml"))
        seen, results = threading.Event(), []

        def progress(step):
            if step.state == "running":
                seen.set()

        def work():
            results.append(runner.run(
                runner.load(tmp_path / "begun.yaml"), store, parameters={}, secrets={},
                volumes=volumes or {}, runs=tmp_path / "runs", engine="slurm", use_cache=False,
                progress=progress,
            ))  # fmt: skip

        thread = threading.Thread(target=work)
        thread.start()

        def result():
            thread.join(60)
            return results[0]

        assert seen.wait(30)
        return result

    return do


@pytest.mark.slow
def test_a_step_is_a_job_with_the_packages_resources_and_gives_what_a_local_step_gives(
    on, execute, image, tmp_path
):
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "key").write_text("hush-hush")

    @dsl.container_component
    def make(data: dsl.Output[dsl.Dataset]):
        code = 'echo "$KEY" | sha256sum > "$0"; echo "made by $(id -u)"; ls -d "$SLURM_JOB_ID"/'
        return dsl.ContainerSpec(image, ["sh", "-c", code + " || true"], [data.path])

    @dsl.container_component
    def use(data: dsl.Input[dsl.Dataset], said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'cat "$0" > "$1"'], [data.path, said])

    @dsl.pipeline(name="small")
    def small() -> str:
        made = make().set_cpu_limit("2").set_memory_limit("100Mi")
        kubernetes.set_timeout(made, 120)
        kubernetes.use_secret_as_env(made, "login", {"key": "KEY"})
        return use(data=made.outputs["data"]).output

    found = execute(small, secrets={"login": folder}, engine="slurm", cache=True)
    job = job_of(on, "make")
    shown = on.ask("scontrol", "show", "job", "--oneliner", job).split()
    told = dict(word.split("=", 1) for word in shown if "=" in word)
    script = on.ask("scontrol", "write", "batch_script", job, "-")
    local = execute(small, secrets={"login": folder}, cache=True)
    again = execute(small, secrets={"login": folder}, cache=False)

    assert found.state == "succeeded", found.error
    assert found.outputs == again.outputs
    assert {step.state for step in local.steps.values()} == {"cached"}
    assert (told["NumCPUs"], told["TimeLimit"], told["Requeue"]) == ("2", "00:02:00", "0")
    assert told["MinMemoryNode"] == "356M"  # the step's, and what watches it
    assert "hush" not in script + json.dumps(told)
    assert log(found, "make").startswith("made by 65532")
    assert found.steps["make"].max_rss > 0
    left = {path.name for path in (found.folder / "steps" / "make").iterdir()}
    assert left == {"again.json", "input.json", "log.txt", "out"}


@pytest.mark.slow
def test_limits_and_failures_of_a_step_are_told_in_the_words_of_a_local_run(on, execute, script):
    @dsl.pipeline(name="limits")
    def limits():
        script(code="echo no such well; exit 3").set_display_name("wrong")
        script(code="x=0123456789abcdef; while :; do x=$x$x; done").set_memory_limit("64Mi")
        kubernetes.set_timeout(script(code="sleep 60"), 1)
        script(code="true").set_memory_limit("100Gi")

    result = execute(limits, engine="slurm")
    steps = [result.steps[name] for name in ("script", "script-2", "script-3", "script-4")]
    assert "exit code 3; it said: no such well" in steps[0].error
    assert "used more than its memory limit" in steps[1].error
    assert "more memory" in steps[1].advice
    assert "stopped after its time limit, 1 s" in steps[2].error
    assert "more time" in steps[2].advice
    assert "sbatch refused: Batch job submission failed: " in steps[3].error
    assert "Requested node configuration is not available" in steps[3].error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (("scontrol", "update", "nodename=one", "state=down", "reason=x"), "its node one failed"),
        (("scancel", "--user=" + slurm_cluster.user()), "somebody cancelled its job"),
    ],
)  # fmt: skip
def test_what_ends_a_job_from_outside_is_the_cause_of_its_step(on, begun, script, end, cause):
    @dsl.pipeline(name="ended")
    def ended():
        script(code="echo begun; sleep 300")

    result = begun(ended)
    on.ask(*end)
    found = result()
    if "scontrol" in end:
        on.ask("scontrol", "update", "nodename=one", "state=idle")
    assert f"killed because {cause}" in found.steps["script"].error
    assert found.steps["script"].advice.startswith("run the package again; ")
    assert "CANCELLED" in log(found, "script")  # Slurm's own line


@pytest.mark.slow
def test_a_controller_that_is_away_for_a_while_ends_no_run(on, begun, image, tmp_path, capfd):
    @dsl.container_component
    def wait(said: dsl.OutputPath(str), go: str):
        code = 'until test -e /gate/go; do sleep 0.1; done; echo -n through > "$0"'
        return dsl.ContainerSpec(image, ["sh", "-c", code], [said, go])

    @dsl.pipeline(name="away")
    def away() -> str:
        first = wait(go="1")
        kubernetes.mount_pvc(first, "gate", "/gate")
        second = wait(go="2").after(first)
        kubernetes.mount_pvc(second, "gate", "/gate")
        return second.output

    gate = tmp_path / "gate"
    gate.mkdir()
    result = begun(away, volumes={"gate": runner.Volume(gate)})
    on.end("slurmctld")
    (gate / "go").touch()  # the first job ends, and the second cannot be submitted
    on.until(lambda: "trying again" in capfd.readouterr().err)
    on.start("slurmctld", "-D")
    on.end("slurmd")  # a node that starts is known at once
    on.start("slurmd", "-D", "-N", "one")
    found = result()
    assert found.state == "succeeded", found.error
    assert found.outputs == {"Output": "through"}


@pytest.mark.slow
def test_ctrl_c_leaves_no_job_running_or_waiting(on, script, store, tmp_path):
    @dsl.pipeline(name="stopped")
    def stopped():
        script(code="echo begun; sleep 300").set_cpu_limit("2")
        script(code="echo begun; sleep 300").set_cpu_limit("2")

    package = tmp_path / "package.yaml"
    compiler.Compiler().compile(stopped, str(package))
    program = (
        "import sys; from pathlib import Path; from builder.store import Store; "
        "from pipeline.run import runner; "
        f"runner.run(runner.load(Path({str(package)!r})), Store.open(Path({str(store.root)!r})), "
        "parameters={}, volumes={}, secrets={}, engine='slurm', use_cache=False, "
        f"runs=Path({str(tmp_path / 'runs')!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE,
                               start_new_session=True)  # fmt: skip

    def states():
        return sorted(on.ask("squeue", "--noheader", "--format=%T").split())

    on.until(lambda: states() == ["PENDING", "RUNNING"])
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: sbatch would get it as well
    _, said = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    assert set(states()) <= {"COMPLETING"}  # cancelled, if its end is not yet told everywhere
    (record,) = (tmp_path / "runs").glob("*/run.json")
    kept = json.loads(record.read_text())
    assert {step["state"] for step in kept["steps"].values()} == {"stopped"}


def test_a_machine_without_slurm_is_told_before_anything_runs(execute, script, monkeypatch):
    @dsl.pipeline(name="none")
    def none():
        script(code="true")

    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PipelineError, match="cannot run here: there is no program scontrol"):
        execute(none, engine="slurm")


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("TIMEOUT", "stopped after its time limit, 7 s"),
        ("OUT_OF_MEMORY", "killed because it used more than its memory limit"),
        ("PREEMPTED", "killed because Slurm preempted it for another job (Slurm says PREEMPTED)"),
        ("BOOT_FAIL", "killed because its node n7 did not start (Slurm says BOOT_FAIL)"),
    ],
)
def test_slurms_own_ends_are_read_out_of_the_queue(state, text):
    word = words(f"12|{state}|None|n7\n13|PENDING|Resources|\n")["12"]
    assert word.over
    assert str(ending.by_slurm(word, "12", 7.0)) == text


def test_a_job_that_waits_or_failed_by_itself_was_not_ended_by_slurm():
    assert not Word("PENDING", "Resources").over
    assert ending.by_slurm(Word("FAILED", "NonZeroExitCode", "n7"), "12", 7.0) is None


def test_a_controller_that_fails_is_asked_once_for_all_steps_that_wait(tmp_path):
    program = tmp_path / "squeue"
    program.write_text(
        f"#!/bin/sh\necho >> {tmp_path}/asked\n"
        "echo 'squeue: error: Unable to contact slurm controller (connect failure)' >&2; exit 1\n"
    )
    program.chmod(0o755)
    queue = Queue({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    for job in ("1", "2", "3"):
        with pytest.raises(Unreachable, match="does not answer"):
            queue.word(job, 0.0, within=3600)
    assert (tmp_path / "asked").read_text() == "\n"


@dataclass
class _Ended:
    """A queue whose only job has ended; `left` are the files of its end."""

    left: dict[str, str]
    environ: dict[str, str] = field(default_factory=dict)

    def submit(self, options, script):
        folder = Path(
            next(o for o in options if o.startswith("--output=")).partition("=")[2]
        ).parent
        for name, text in self.left.items():
            (folder / name).write_text(text)
        return "7"

    def word(self, job, since, within):
        return Word("COMPLETED", "None", "n7")


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({}, "its job 7 ended on the node n7 without a result (Slurm says COMPLETED); see that"),
        (
            {submission.EXIT: '{"error": "there is no /x", "node": "n7"}'},
            "the node n7: there is no",
        ),
        (
            {submission.EXIT: '{"exit": {"code": 0}, "left": {"/nowhere": {"a": 1}}}'},
            "/nowhere was written on the node, but this machine does not see it",
        ),
    ],
)
def test_an_end_that_cannot_be_read_or_seen_is_no_success(store, image, tmp_path, left, said):
    jobs = _Ended(left)
    arrays = Arrays(jobs, tmp_path, 1001)
    run = Slurm(store, tmp_path, Record(lambda _: None), jobs, arrays, lag=0)
    found = store.image(image.partition("@")[2])
    job = run.start(Process(image=found, command=("true",), needs=Needs("step")))
    with pytest.raises(PipelineError) as error:
        job.wait()
    assert said in str(error.value)
    assert not list((tmp_path / "steps" / "step").iterdir())  # nothing of the job is left


@pytest.fixture
def on_a_node():
    """Take back the handler of SIGTERM that a job on a node has."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("on_a_node")
def test_a_node_that_lacks_a_folder_says_which_and_keeps_no_secret(tmp_path):
    (tmp_path / submission.LEASE).write_text("0")
    document = {"store": str(tmp_path / "store"), "mounts": [], "env": {"KEY": "hush"}}
    (tmp_path / submission.PROCESS).write_text(json.dumps(document))
    assert node.main(tmp_path) == 1
    assert f"there is no {tmp_path}/store" in (tmp_path / submission.EXIT).read_text()
    assert not (tmp_path / submission.PROCESS).exists()


@pytest.mark.usefixtures("on_a_node")
def test_a_job_whose_run_gave_it_up_runs_nothing(tmp_path):
    (tmp_path / submission.PROCESS).write_text("no JSON: it is not read")
    assert node.main(tmp_path) == 1
    assert not (tmp_path / submission.EXIT).exists()


def test_a_lease_that_stands_still_is_over_and_one_that_changes_is_not(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(node.time, "monotonic", lambda: clock.now)
    path = tmp_path / "lease"
    path.write_text("0")
    lease = node.Lease(path)
    for clock.now in (1.0, 299.0):
        assert not lease.over()
    path.write_text("1")
    for clock.now in (302.0, 601.0):
        assert not lease.over()
    clock.now = 603.0
    assert lease.over()


def test_what_a_node_wrote_counts_only_when_this_machine_sees_all_of_it(tmp_path):
    (tmp_path / "out" / "inner").mkdir(parents=True)
    (tmp_path / "out" / "old").write_text("before")
    since = (tmp_path / "out" / "old").stat().st_ctime_ns + 1
    os.utime(tmp_path / "out", None)
    for name in ("a", "inner/b"):
        (tmp_path / "out" / name).write_text("made")
    left = node.listed([tmp_path / "out"], since)
    assert {name for names in left.values() for name in names} == {"a", "b"}
    assert ending.lacking(left) == ""
    (tmp_path / "out" / "inner" / "b").write_text("mad")
    assert ending.lacking(left) == str(tmp_path / "out" / "inner" / "b")


@settings(max_examples=30, deadline=None)
@given(
    env=st.dictionaries(st.text(), st.text()), word=st.text(), path=st.binary(min_size=1),
    timeout=st.none() | st.floats(0.001, 1e9), memory=st.none() | st.integers(1, 1 << 60),
)  # fmt: skip
def test_a_node_gets_the_very_process_that_the_run_made(env, word, path, timeout, memory):
    name = path.replace(b"\0", b"").replace(b"/", b"") or b"x"
    image = SimpleNamespace(digest="sha256:" + "0" * 64, config={})
    store = SimpleNamespace(root=Path("/store"), image=lambda _: image)
    made = Process(
        image=image, command=(word,), env=env, timeout=timeout, memory=memory, network=True,
        mounts=(Mount(Path("/run") / os.fsdecode(name), "/kfp/x", writable=True),), user="1:2",
    )  # fmt: skip
    sent = json.loads(json.dumps(submission.to_document(made, store, Path("/run"))))
    assert submission.from_document(sent, store) == made
    assert sent["own"] == [str(made.mounts[0].source)]


def test_no_variable_with_a_secret_and_no_choice_but_of_a_queue_is_handed_to_a_job():
    environ = dict.fromkeys(
        ("PLATELINE_SIGNING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "SBATCH_QOS", "SBATCH_ARRAY_INX",
         "SLURM_MEM_PER_NODE", "PLATELINE_STEP_LOG"), "x")  # fmt: skip
    assert set(submission.environment(environ)) == {"SBATCH_QOS", "PLATELINE_STEP_LOG"}
    assert submission.ignored(environ) == ["SBATCH_ARRAY_INX"]


def test_a_limit_that_the_package_does_not_set_is_left_to_the_site():
    image = SimpleNamespace(digest="sha256:0", config={})
    bare = submission.options(Process(image=image), {})
    assert not [o for o in bare if o.startswith(("--mem", "--time", "--cpus"))]
    asked = Process(image=image, timeout=61, needs=Needs("train", 1.5, 1 << 30))
    assert submission.options(asked, {})[-3:] == ["--cpus-per-task=2", "--mem=1280M", "--time=2"]
    chosen = submission.options(asked, {"SBATCH_TIMELIMIT": "8:00:00"})
    assert not [option for option in chosen if option.startswith("--time")]


def test_a_jobs_name_is_one_line_and_no_sign_of_its_folder_is_slurms():
    assert submission.named("train\n(fold A)", Path("/runs/100%/slurm.txt")) == [
        "--job-name=train (fold A)", "--output=/runs/100%%/slurm.txt"]  # fmt: skip
    assert submission.named("train", Path("/100%"), array=3) == [
        "--job-name=train", "--output=/100%%/%a/slurm.txt", "--array=0-2"]  # fmt: skip


@dataclass
class _Taken:
    """A queue that takes, or refuses, what it is given."""

    refusal: PipelineError | None = None
    jobs: list[tuple[str, ...]] = field(default_factory=list)

    def submit(self, options, script):
        self.jobs.append((*options, script))
        if self.refusal:
            raise self.refusal
        return str(len(self.jobs))


def submitted(arrays, folder, asked):
    """Submit jobs, (name, option), in threads; return the number or the error of each."""
    ready = threading.Barrier(len(asked))

    def one(index, name, option):
        own = folder / str(index)
        own.mkdir()
        ready.wait()
        try:
            return arrays.submit(loop_of(name), [option], name, own)
        except PipelineError as error:
            return error

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda job: one(*job), [(i, *each) for i, each in enumerate(asked)]))


def test_rounds_that_ask_for_the_same_are_one_array_and_all_else_is_a_job_of_its_own(tmp_path):
    queue = _Taken()
    rounds = [(f"loop.{number}.train", "--mem=1M") for number in range(4)]
    others = [("loop.9.train", "--mem=2M"), ("loop.0.test", "--mem=1M"), ("last", "--mem=1M")]
    arrays = Arrays(queue, tmp_path, 1001)
    found = submitted(arrays, tmp_path, rounds + others)
    several = [job for job in queue.jobs if "--array=0-3" in job]
    assert len(several) == 1
    assert "--job-name=train" in several[0]
    assert len(queue.jobs) == 4, "the array, and three alone"
    (number,) = {job.partition("_")[0] for job in found[:4]}
    assert sorted(found[:4]) == [f"{number}_{index}" for index in range(4)]
    assert all("_" not in job for job in found[4:])
    for index, job in enumerate(found[:4]):  # each number leads to the folder of its own job
        link = tmp_path / "arrays/1" / job.partition("_")[2]
        assert link.resolve() == tmp_path / str(index)
        arrays.forget(job)
    assert not (tmp_path / "arrays").exists()


def test_an_array_has_no_more_jobs_than_the_cluster_allows_and_none_where_it_has_none(tmp_path):
    rounds = [(f"loop.{number}.train", "") for number in range(5)]
    (tmp_path / "two").mkdir()
    found = submitted(Arrays(two := _Taken(), tmp_path / "two", 2), tmp_path / "two", rounds)
    assert len(two.jobs) == 3
    assert len(set(found)) == 5
    (tmp_path / "none").mkdir()
    submitted(Arrays(none := _Taken(), tmp_path / "none", 0), tmp_path / "none", rounds)
    assert len(none.jobs) == 5


@pytest.mark.parametrize("refusal", [PipelineError("no such queue"), Unreachable("away")])
def test_what_slurm_says_to_an_array_is_said_to_each_of_its_steps(tmp_path, refusal):
    rounds = [(f"loop.{number}.train", "") for number in range(3)]
    found = submitted(Arrays(_Taken(refusal), tmp_path, 1001), tmp_path, rounds)
    assert found == [refusal] * 3
    assert not (tmp_path / "arrays/1").exists()


@pytest.mark.slow
def test_a_loop_is_an_array_whose_jobs_end_each_for_itself(on, script, store, tmp_path):
    @dsl.pipeline(name="loop")
    def loop():
        with dsl.ParallelFor(["a", "b", "c"]) as item:
            script(code=f"echo round {item}; test {item} != b || exit 7")

    package = tmp_path / "package.yaml"
    compiler.Compiler().compile(loop, str(package))
    found = runner.run(
        runner.load(package), store, parameters={}, volumes={}, secrets={}, engine="slurm",
        use_cache=False, runs=tmp_path / "runs", jobs=3,
    )  # fmt: skip
    on.until_idle()  # until then a job's state may be COMPLETING, whatever it becomes
    listed = on.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%j")
    jobs = [line.split("|") for line in listed.splitlines() if line.endswith("|script")]
    newest = max(
        (number for number, *_ in jobs if "_" in number), key=lambda n: int(n.split("_")[0])
    )
    array = newest.partition("_")[0]
    states = sorted(state for number, state, _ in jobs if number.startswith(f"{array}_"))
    assert states == ["COMPLETED", "COMPLETED", "FAILED"]
    steps = {log(found, name).strip(): step for name, step in found.steps.items()}
    assert {said: step.state for said, step in steps.items()} == {
        "round a": "succeeded", "round b": "failed", "round c": "succeeded"}  # fmt: skip
    assert "exit code 7" in steps["round b"].error
    assert not (found.folder / "arrays").exists()


def job_of(cluster, name):
    lines = cluster.ask("squeue", "--noheader", "--states=all", "--format=%i|%j").splitlines()
    return next(line.partition("|")[0] for line in reversed(lines) if line.endswith(f"|{name}"))


def log(result, step):
    return (result.folder / "steps" / step / "log.txt").read_text()
