"""A package becomes a version named after its digest and a run, or an error says what to do."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from kfp import compiler, dsl

from builder.registry.client import Registry
from builder.registry.push import push
from pipeline.errors import PipelineError
from pipeline.kubeflow.server.access import Access
from pipeline.kubeflow.submit import Schedule, submit
from pipeline.run.record import Step
from pipeline.spec.package import load
from tests.pipeline.run.conftest import busybox

ROOT = Path(__file__).parents[3]


def compiled(path, image="example.org/x@sha256:" + "0" * 64):
    @dsl.container_component
    def work(text: str, n: int, other: str = "none"):
        return dsl.ContainerSpec(image, ["echo"], [text, n, other])

    @dsl.pipeline(name="submitted")
    def submitted(text: str, n: int = 3, package_digest: str = ""):
        work(text=text, n=n, other=package_digest)

    compiler.Compiler().compile(submitted, str(path))
    return path


@pytest.fixture
def package(tmp_path):
    return compiled(tmp_path / "package.yaml")


@pytest.fixture
def send(package, access):
    def do(**changes):
        named = {"parameters": {"text": "a"}, "check_registry": False, **changes}
        return submit(package, named.pop("access", access), **named)

    return do


def test_a_version_is_named_after_the_digest_and_holds_the_very_bytes(send, kubeflow, package):
    done = send(parameters={"text": "a", "n": "5"}, experiment="plates")
    (version,) = kubeflow.versions.values()
    digest = load(package).digest
    assert version["display_name"] == done.version == digest.replace(":", "-")
    assert version["uploaded"] == package.read_text()
    (run,) = kubeflow.runs.values()
    assert run["runtime_config"]["parameters"] == {"text": "a", "n": 5, "package_digest": digest}
    assert run["pipeline_version_reference"]["pipeline_version_id"] == done.version_id
    assert [e["display_name"] for e in kubeflow.experiments.values()] == ["plates"]
    assert done.link == f"{kubeflow.url}/#/runs/details/{done.run_id}"
    assert run["display_name"] == done.name
    assert "service_account" not in run


def test_a_version_that_is_there_is_used_again(send, kubeflow):
    first, second = send(), send()
    assert (first.reused, second.reused) == (False, True)
    assert len(kubeflow.pipelines) == len(kubeflow.versions) == 1
    assert len(kubeflow.runs) == 2
    assert kubeflow.requests.count("POST /pipelines/upload_version") == 1


def test_a_conflict_with_somebody_faster_is_none(send, kubeflow):
    """Both questions find nothing, both creations find that another has made it by then."""
    send()
    pipelines, versions = dict(kubeflow.pipelines), dict(kubeflow.versions)
    kubeflow.pipelines.clear()
    kubeflow.versions.clear()

    def conflict(kept, items):
        def fault():
            items.update(kept)
            return 409

        return fault

    kubeflow.faults["POST /pipelines"] = conflict(pipelines, kubeflow.pipelines)
    kubeflow.faults["POST /pipelines/upload_version"] = conflict(versions, kubeflow.versions)
    assert send().version_id == next(iter(versions))


def test_a_conflict_that_stays_is_said(send, kubeflow):
    kubeflow.faults["POST /pipelines/upload_version"] = 409
    with pytest.raises(PipelineError, match=r"409 .*submit again"):
        send()
    assert kubeflow.runs == {}


@pytest.mark.parametrize(
    "place", ["GET /healthz", "GET /pipelines", "POST /pipelines", "POST /runs"]
)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, "401.*--token-file"),
        (403, "403.*--namespace"),
        (404, "404.*check --host"),
        (500, r"500 \(made up 500\).*log of the deployment ml-pipeline"),
        ("hang", "gave no answer.*check --host"),
    ],
)
def test_a_bad_answer_is_one_message_with_a_way_out(send, kubeflow, access, place, fault, words):
    kubeflow.faults[place] = fault
    with pytest.raises(PipelineError, match=words) as caught:
        send(access=replace(access, timeout=0.3))
    assert kubeflow.url in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert kubeflow.runs == {}


def test_a_page_to_sign_in_is_no_api(send, kubeflow):
    kubeflow.faults["GET /healthz"] = "page"
    with pytest.raises(PipelineError, match=r"is not the API.*--cookie-file"):
        send()


def test_nobody_listening_is_said(send):
    with pytest.raises(PipelineError, match=r"127\.0\.0\.1:1 gave no answer"):
        send(access=Access("http://127.0.0.1:1", timeout=1))


@pytest.mark.parametrize("secret", [{"token": "t0ken"}, {"cookie": "session=abc"}])
@pytest.mark.parametrize("host", ["http://kubeflow.example.org", "http://10.0.0.1:8080"])
def test_no_token_and_no_cookie_goes_out_over_plain_http(send, access, secret, host):
    with pytest.raises(PipelineError, match="would be readable on the network"):
        send(access=replace(access, host=host, **secret))


def test_a_token_or_a_cookie_lets_in(send, kubeflow, access):
    kubeflow.token = "t0ken"
    with pytest.raises(PipelineError, match="401"):
        send()
    assert send(access=replace(access, token="t0ken")).run_id
    kubeflow.token, kubeflow.cookie = "", "authservice_session=abc"
    assert send(access=replace(access, cookie="authservice_session=abc")).run_id


def test_a_profile_keeps_its_pipeline_experiment_and_run_apart(send, kubeflow, access):
    send(access=replace(access, namespace="profile"))
    (pipeline,), (experiment,) = kubeflow.pipelines.values(), kubeflow.experiments.values()
    assert pipeline["namespace"] == experiment["namespace"] == "profile"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "'text' is missing"),
        ({"text": "a", "n": "x"}, "not of its type"),
        ({"m": 1}, "no parameter 'm'"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_is_sent(send, kubeflow, parameters, words):
    with pytest.raises(PipelineError, match=words):
        send(parameters=parameters)
    assert kubeflow.requests == []


def test_an_image_that_the_registry_lost_is_named_before_anything_is_sent(
    store, registry_host, tmp_path, kubeflow, access
):
    image = busybox(store)
    with Registry(registry_host) as client:
        pushed = push(store, {"x": ("0" * 64, image)}, f"{registry_host}/t", client)
    reference = f"{pushed['x'].reference.host}/{pushed['x'].reference.repository}"
    there = compiled(tmp_path / "there.yaml", f"{reference}@{image.digest}")
    assert submit(there, access, parameters={"text": "a"}).run_id
    sent = len(kubeflow.requests)
    lost = compiled(tmp_path / "lost.yaml", f"{reference}@sha256:{'1' * 64}")
    with pytest.raises(PipelineError, match=f"no longer has {reference}@sha256:111.*push-images"):
        submit(lost, access, parameters={"text": "a"})
    assert len(kubeflow.requests) == sent


def test_an_image_handed_on_as_a_value_is_asked_for_too(store, registry_host, tmp_path, access):
    text = compiled(tmp_path / "p.yaml").read_text()
    value = f"{registry_host}/t/function@sha256:{'2' * 64}"
    (tmp_path / "p.yaml").write_text(text.replace("defaultValue: none", f"defaultValue: {value}")
                                     .replace("example.org", registry_host))  # fmt: skip
    with pytest.raises(PipelineError, match="t/function@sha256:222"):
        submit(tmp_path / "p.yaml", access, parameters={"text": "a"})


def test_a_local_image_and_a_registry_that_is_away_have_ways_out(tmp_path, access, monkeypatch):
    monkeypatch.setattr("builder.registry.connection.time.sleep", lambda _: None)
    for image, words in (("localhost/x", "push-images"), ("127.0.0.1:1/x", "--skip-registry")):
        path = compiled(tmp_path / "p.yaml", f"{image}@sha256:{'0' * 64}")
        with pytest.raises(PipelineError, match=words):
            submit(path, access, parameters={"text": "a"})


@pytest.mark.parametrize(("end", "code"), [("SUCCEEDED", 0), ("FAILED", 1)])
def test_the_task_prints_facts_and_ends_as_the_run(package, kubeflow, tmp_path, end, code):
    kubeflow.states, kubeflow.token = [end], "t0ken"
    (tmp_path / "token").write_text("t0ken\n")
    done = subprocess.run(
        [sys.executable, "-m", "cli", "submit", str(package), "--host", kubeflow.url,
         "--param", "text=a b", "--param", "n=4", "--token-file", str(tmp_path / "token"),
         "--skip-registry", "--wait", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    found = json.loads(done.stdout)
    assert (found["state"], found["reused"]) == (end, False)
    (run,) = kubeflow.runs.values()
    assert run["runtime_config"]["parameters"]["text"] == "a b"
    assert found["link"] in done.stderr


def test_a_run_of_the_name_that_is_there_is_taken_and_not_started_again(send, kubeflow):
    first = send(run_name="nightly 7")
    second = send(run_name="nightly 7")
    assert (first.found, second.found) == (False, True)
    assert second.run_id == first.run_id
    assert list(kubeflow.runs) == [first.run_id]


def test_a_name_that_means_another_run_is_refused(send, kubeflow, package):
    send(run_name="nightly", parameters={"text": "a"})
    with pytest.raises(PipelineError, match="with other parameters"):
        send(run_name="nightly", parameters={"text": "b"})
    package.write_text(package.read_text() + "# another digest\n")
    with pytest.raises(PipelineError, match="of another version"):
        send(run_name="nightly")
    assert len(kubeflow.runs) == 1


@pytest.mark.parametrize("place", ["POST /pipelines", "POST /pipelines/upload_version",
                                   "POST /experiments", "POST /runs"])  # fmt: skip
@pytest.mark.parametrize("fault", ["cut", -502, -504, 502, 503, 429])
def test_nothing_is_made_twice_over_a_flaky_gateway(send, kubeflow, place, fault):
    left = [fault]
    kubeflow.faults[place] = lambda: left.pop() if left else 0
    send()
    assert [len(kept) for kept in (kubeflow.pipelines, kubeflow.versions, kubeflow.experiments,
                                   kubeflow.runs)] == [1, 1, 1, 1]  # fmt: skip


def test_a_service_account_is_that_of_the_run(send, kubeflow):
    send(service_account="runner")
    (run,) = kubeflow.runs.values()
    assert run["service_account"] == "runner"


def test_a_schedule_starts_no_run_now_and_its_name_is_used_once(send, kubeflow):
    schedule = Schedule("0 30 2 * * *", at_once=2)
    done = send(schedule=schedule, run_name="nightly")
    (recurring,) = kubeflow.recurring.values()
    assert recurring["trigger"] == {"cron_schedule": {"cron": "0 30 2 * * *"}}
    assert (recurring["max_concurrency"], recurring["mode"]) == ("2", "ENABLE")
    assert kubeflow.runs == {}
    assert done.link == f"{kubeflow.url}/#/recurringrun/details/{done.recurring_run_id}"
    assert send(schedule=schedule, run_name="nightly").found
    with pytest.raises(PipelineError, match="at other times"):
        send(schedule=Schedule("0 0 3 * * *", at_once=2), run_name="nightly")
    assert len(kubeflow.recurring) == 1


@pytest.mark.parametrize("cron", ["30 2 * * *", "", "* * *", "nightly"])
def test_a_cron_line_that_means_another_time_on_the_server_is_refused(send, kubeflow, cron):
    """Five fields would be taken as seconds to months."""
    with pytest.raises(PipelineError, match="six, seconds first"):
        send(schedule=Schedule(cron))
    assert kubeflow.requests == []


def test_the_task_follows_fetches_and_shows_what_failed(package, kubeflow, tmp_path):
    kubeflow.states = ["RUNNING", "FAILED"]
    kubeflow.steps = {"work": Step("work", "failed")}
    kubeflow.logs["pod-work"] = "no such plate"
    done = subprocess.run(
        [sys.executable, "-m", "cli", "submit", str(package), "--host", kubeflow.url,
         "--param", "text=a", "--skip-registry", "--fetch", str(tmp_path / "run"), "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "work: failed" in done.stderr
    assert "no such plate" in done.stderr
    assert json.loads(done.stdout)["page"] == str(tmp_path / "run" / "index.html")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--context"),
        (["--host", "x", "--context", "y"], "give one of them"),
        (["--host", "x", "--token-file", "a", "--cookie-file", "b"], "exclude each other"),
        (["--host", "x", "--cron", "0 0 1 * * *", "--wait"], "--cron starts no run now"),
        (["--host", "x", "--fetch", "/tmp"], "/tmp is there already"),
    ],
)
def test_options_that_contradict_each_other_are_named(package, monkeypatch, capsys, words, said):
    from cli.cluster import submit as task

    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    options = {
        key.removeprefix("--").replace("-", "_"): value
        for key, value in zip(words[::2], [*words[1::2], True], strict=False)
    }
    with pytest.raises(PipelineError, match=said):
        task(str(package), **options)
