"""What goes wrong in a run is said, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp import compiler, dsl

from tests.browser import chromium

ROOT = Path(__file__).parents[3]


@pytest.fixture
def docker_engine():
    import docker

    try:
        docker.from_env().ping()
    except docker.errors.DockerException:
        pytest.skip("no Docker Engine answers; start dockerd")


@pytest.mark.parametrize("engine", ["bubblewrap", "docker"])
def test_both_engines_give_the_same(execute, image, engine, request):
    if engine == "docker":
        request.getfixturevalue("docker_engine")

    @dsl.container_component
    def who(said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'echo -n "$(id -u) $PATH" > "$0"'], [said])

    @dsl.container_component
    def bad(code: int):
        return dsl.ContainerSpec(image, ["sh", "-c", 'exit "$0"'], [code])

    @dsl.pipeline(name="same")
    def same() -> str:
        bad(code=3)
        return who().output

    result = execute(same, engine=engine)
    assert result.outputs == {"Output": "65532 /bin"}
    assert "exit code 3" in result.error


def test_fifty_failures_of_fifty_are_failures(execute, script):
    @dsl.pipeline(name="fifty")
    def fifty():
        with dsl.ParallelFor(list(range(50))) as item:
            script(code=f"exit 1 # {item}")

    result = execute(fifty)
    states = [step.state for step in result.steps.values() if step.name.endswith("script")]
    assert states == ["failed"] * 50


def test_an_image_is_read_only_and_outputs_stay_in_their_place(execute, script):
    @dsl.pipeline(name="outside")
    def outside():
        script(code="echo x > /bin/x && exit 0; echo x > /kfp/x && exit 0; exit 5")

    assert "exit code 5" in execute(outside).error


def test_a_hundred_megabytes_of_output_are_kept_in_the_log_and_cut_on_the_page(execute, script):
    @dsl.pipeline(name="loud")
    def loud():
        script(code="dd if=/dev/zero bs=1048576 count=100; exit 1")

    result = execute(loud)
    log = result.folder / "steps" / "script" / "log.txt"
    size = log.stat().st_size
    log.unlink()
    assert size >= 100 * 2**20
    assert result.page.stat().st_size < 1_000_000


@pytest.mark.parametrize("engine", ["bubblewrap", "docker"])
def test_an_interrupt_stops_everything_and_what_was_done_comes_from_the_cache(
    store, script, tmp_path, engine, request
):
    if engine == "docker":
        request.getfixturevalue("docker_engine")

    duration = {"bubblewrap": 4242, "docker": 4243}[engine]

    @dsl.pipeline(name="long")
    def long():
        first = script(code=f"exit 0 # {engine}")
        script(code=f"sleep {duration}").after(first)

    path = tmp_path / "package.yaml"
    compiler.Compiler().compile(long, str(path))
    code = (
        "import sys; from pathlib import Path; from builder.store import Store\n"
        "from pipeline.run import runner; from pipeline.run.progress import lines\n"
        "runner.run(runner.load(Path(sys.argv[1])), Store.open(Path(sys.argv[2])), parameters={},\n"
        "  volumes={}, secrets={}, runs=Path(sys.argv[3]), engine=sys.argv[4],\n"
        "  progress=lines(sys.stdout))"
    )
    for expected, number in (
        ("script: succeeded", signal.SIGINT),
        ("script: cached", signal.SIGTERM),
    ):
        process = subprocess.Popen(
            [sys.executable, "-c", code, path, store.root, tmp_path / "runs", engine],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        seen = []
        for line in process.stdout:
            seen.append(line)
            if line.startswith("script-2: running"):
                time.sleep(0.3)
                os.kill(process.pid, number)
        errors = process.communicate(timeout=20)[1]
        assert process.returncode != 0, (seen, errors)
        assert "KeyboardInterrupt" in errors
        assert any(line.startswith(expected) for line in seen), (seen, errors)
        assert any(line.startswith("script-2: stopped") for line in seen), (seen, errors)
    commands = []
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(found.read_bytes())
        except OSError:
            continue
    assert not [command for command in commands if command == b"sleep\x00%d\x00" % duration]
    assert list((store.root / "tmp").iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    if engine == "docker":
        import docker

        label = {"label": f"plateline={process.pid}"}
        assert docker.from_env().containers.list(all=True, filters=label) == []


def test_a_damaged_cache_entry_is_not_used(execute, image, store):
    @dsl.container_component
    def say(said: dsl.OutputPath(str)):
        return dsl.ContainerSpec(image, ["sh", "-c", 'echo -n damaged? > "$0"'], [said])

    @dsl.pipeline(name="damage")
    def damage() -> str:
        return say().output

    execute(damage, cache=True)
    for entry in (store.root.parent / "steps").glob("*/out/.parameters/said"):
        entry.write_text("wrong")
    again = execute(damage, cache=True)
    assert again.steps["say"].state == "succeeded"
    assert again.outputs == {"Output": "damaged?"}


PNG = (  # one red pixel, for printf
    "\\211\\120\\116\\107\\015\\012\\032\\012\\000\\000\\000\\015\\111\\110\\104\\122\\000"
    "\\000\\000\\001\\000\\000\\000\\001\\010\\002\\000\\000\\000\\220\\167\\123\\336\\000"
    "\\000\\000\\014\\111\\104\\101\\124\\170\\234\\143\\370\\317\\300\\000\\000\\003\\001"
    "\\001\\000\\311\\376\\222\\357\\000\\000\\000\\000\\111\\105\\116\\104\\256\\102\\140"
    "\\202"
)


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits_a_browser_and_shows_all(execute, script, image, width):
    @dsl.container_component
    def report(page: dsl.Output[dsl.HTML], told: dsl.Output[dsl.Markdown]):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'echo "<h1>report</h1>" > "$0"; echo "# told" > "$1"'],
            [page.path, told.path],
        )  # fmt: skip

    @dsl.container_component
    def draw(text: str, picture: dsl.Output[dsl.Artifact], score: dsl.Output[dsl.Metrics]):
        return dsl.ContainerSpec(
            image, ["sh", "-c",
                    ('printf "$0" > "$1"; echo "{\\"artifacts\\": {\\"score\\": {\\"artifacts\\": '
                    '[{\\"name\\": \\"score\\", \\"metadata\\": {\\"f1\\": 0.875}}]}}}" > "$2"')],
            [PNG, picture.path, "{{$.outputs.output_file}}"],
        )  # fmt: skip

    @dsl.pipeline(name="page")
    def pages(text: str = "a-very-long-parameter-" * 12):
        drawn = draw(text=text)
        with dsl.ParallelFor(["left", "right"], name="sides"):
            report().after(drawn)
        script(code="echo last words; exit 3").after(drawn)

    result = execute(pages)
    with chromium() as browser:

        def js(words):
            return browser.execute_script(f"return {words}")

        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(result.page.as_uri())
        assert js("document.documentElement.scrollWidth") <= width
        assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []
        assert js("[...document.images].map(i => i.complete && i.naturalWidth)") == [1]
        assert js("[...document.querySelectorAll('.row')].map(r => r.children.length)") == [1, 3]
        assert js("document.querySelectorAll('.bar').length") == 4
        small = "[...document.body.querySelectorAll('*')].filter(e => parseFloat("
        assert js(small + "getComputedStyle(e).fontSize) < 11).length") == 0
        text = js("document.body.textContent")
        for words in ("0.875", "exit code 3", "last words", "# told", "a-very-long-parameter"):
            assert words in text
        browser.switch_to.frame(0)
        assert "report" in browser.page_source


@pytest.mark.parametrize("engine", ["bubblewrap", "docker"])
def test_a_writable_claim_belongs_to_the_caller(execute, script, tmp_path, engine, request):
    if engine == "docker":
        request.getfixturevalue("docker_engine")
    from kfp import kubernetes

    from pipeline.run.runner import Volume

    folder = tmp_path / "claim" / "inner"
    folder.mkdir(parents=True)

    @dsl.pipeline(name="writes")
    def writes():
        task = script(code="echo x > /claim/inner/f")
        kubernetes.mount_pvc(task, "c", "/claim")

    result = execute(writes, engine=engine, volumes={"c": Volume(folder.parent, writable=True)})
    assert result.state == "succeeded", result.error
    assert (folder / "f").stat().st_uid == os.geteuid()


def test_the_store_is_there_for_a_local_repository(execute, image):
    @dsl.container_component
    def look(repo: str):
        return dsl.ContainerSpec(
            image, ["sh", "-c", 'test -e "$PLATELINE_STORE/oci-layout"'], [repo]
        )

    @dsl.pipeline(name="local")
    def local(repo: str):
        look(repo=repo)

    assert execute(local, repo="localhost/x").state == "succeeded"
    assert execute(local, repo="elsewhere/x").state == "failed"


@pytest.mark.parametrize("engine", ["bubblewrap", "docker"])
def test_a_step_runs_as_the_user_that_the_package_says(execute, script, engine, request):
    if engine == "docker":
        request.getfixturevalue("docker_engine")
    from kfp import kubernetes

    @dsl.pipeline(name="user")
    def user():
        task = script(code="test $(id -u):$(id -g) = 1234:5678")
        kubernetes.set_security_context(task, run_as_user=1234, run_as_group=5678)

    result = execute(user, engine=engine)
    assert result.state == "succeeded", result.error
    assert result.notes == ()


@pytest.mark.parametrize("engine", ["bubblewrap", "docker"])
def test_a_step_that_uses_more_memory_than_its_limit_is_killed_and_says_so(
    execute, script, engine, request
):
    if engine == "docker":
        request.getfixturevalue("docker_engine")

    @dsl.pipeline(name="memory")
    def memory(limit: str = "64Mi"):
        script(code="dd if=/dev/zero of=/dev/null bs=300M count=1000; sleep 5").set_memory_limit(
            limit
        )
        script(code="dd if=/dev/zero of=/dev/null bs=8M count=10").set_memory_limit(limit)

    result = execute(memory, engine=engine)
    assert result.state == "failed"
    assert "script: killed because it used more than its memory limit" in result.error
    assert result.steps["script-2"].state == "succeeded"
    assert result.seconds < 15


def test_memory_is_that_of_all_processes_of_a_step_together(execute, script):
    @dsl.pipeline(name="tree")
    def tree():
        hold = "dd if=/dev/zero of=/dev/null bs=40M count=100000 & "
        script(code=hold * 3 + "sleep 5").set_memory_limit("80Mi")

    assert "memory limit" in execute(tree).error


def test_a_file_in_tmp_counts_as_memory(execute, script):
    @dsl.pipeline(name="tmp")
    def tmp():
        script(code="dd if=/dev/zero of=/tmp/f bs=1M count=100").set_memory_limit("50Mi")

    result = execute(tmp)
    assert result.state == "failed"
    said = (result.folder / "steps" / "script" / "log.txt").read_text()
    said += result.steps["script"].error
    # A control group kills the step; without one, /tmp is as small as the limit.
    assert "No space left" in said or "more than its memory limit" in said


@pytest.fixture
def writes(execute, script, tmp_path):
    """Run, with the cache, a step that adds f to a writable claim; return how its step ended."""
    from kfp import kubernetes

    from pipeline.run.runner import Volume

    folder = tmp_path / "claim"
    folder.mkdir()

    @dsl.pipeline(name="claims")
    def claims():
        task = script(
            code="sleep 0.1; echo x > /claim/f; echo x > /claim/temporary; rm /claim/temporary"
        )
        kubernetes.mount_pvc(task, "c", "/claim")
        other = script(code="echo y > /claim/g")
        kubernetes.mount_pvc(other, "c", "/claim")

    def run(changed=folder):
        result = execute(claims, cache=True, volumes={"c": Volume(changed, writable=True)})
        return result.steps["script"].state

    run.folder = folder
    return run


def test_a_result_stands_while_what_its_step_left_in_a_claim_is_there(writes):
    assert [writes(), writes()] == ["succeeded", "cached"]
    (writes.folder / "other").write_text("made by somebody else")
    assert writes() == "cached"
    (writes.folder / "f").write_text("changed")
    assert writes() == "succeeded"
    assert (writes.folder / "f").read_text() == "x\n"
    assert writes() == "cached"
    (writes.folder / "f").unlink()
    assert writes() == "succeeded"


def test_a_result_is_not_for_another_folder(writes, tmp_path):
    writes()
    (tmp_path / "new").mkdir()
    assert writes(tmp_path / "new") == "succeeded"
    assert (tmp_path / "new" / "f").exists()


def test_another_secret_is_another_step(execute, script, tmp_path):
    from kfp import kubernetes

    @dsl.pipeline(name="secrets")
    def secrets(name: str = "login"):
        task = script(code="cat /secret/key")
        kubernetes.use_secret_as_volume(task, name, "/secret")
        kubernetes.use_secret_as_env(task, name, {"key": "KEY"})

    states, folder = [], tmp_path / "secret"
    folder.mkdir()
    for value in ("one", "one", "two"):
        (folder / "key").write_text(value)
        done = execute(secrets, cache=True, secrets={"login": folder})
        states.append(done.steps["script"].state)
    assert states == ["succeeded", "cached", "succeeded"]
    assert "two" not in (done.folder / "run.json").read_text()


def test_a_claim_named_by_a_parameter_is_found_in_a_loop(execute, script, tmp_path):
    from kfp import kubernetes

    from pipeline.run.runner import Volume

    (tmp_path / "f").write_text("there")

    @dsl.pipeline(name="named")
    def named(claim: str):
        with dsl.ParallelFor([1]):
            task = script(code="cat /claim/f")
            kubernetes.mount_pvc(task, claim, "/claim")

    assert execute(named, volumes={"c": Volume(tmp_path)}, claim="c").state == "succeeded"
    lost = execute(named, volumes={"c": Volume(tmp_path)}, claim="d")
    assert "mounts the claim d; give a folder with --volume d=DIR" in lost.error


BROKEN = ROOT / "tests" / "pipeline" / "spec" / "broken"
UNWIRED = [
    path
    for rule in ("missing-input", "missing-output.", "missing-producer", "missing-component",
                 "missing-executor.", "resource-parameter", "cycle")
    for path in sorted(BROKEN.glob(f"{rule}*"))
]  # fmt: skip


@pytest.mark.parametrize("path", UNWIRED, ids=lambda path: path.stem)
def test_what_leads_nowhere_is_refused_before_anything_runs(store, image, tmp_path, path):
    """Otherwise its step would count as one whose input was skipped, and the run as a success."""
    from pipeline.errors import PipelineError
    from pipeline.run import runner

    package = tmp_path / "package.yaml"
    package.write_text(path.read_text().replace("sha256:" + "0" * 64, image.partition("@")[2]))
    with pytest.raises(PipelineError, match="the package cannot run: "):
        runner.run(
            runner.load(package), store, parameters={}, volumes={}, secrets={},
            runs=tmp_path / "runs",
        )  # fmt: skip
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_five_hundred_failures_of_five_hundred_are_failures(execute, script):
    @dsl.pipeline(name="many")
    def many():
        with dsl.ParallelFor(list(range(500))) as item:
            script(code=f"exit 1 # {item}")

    result = execute(many)
    states = [step.state for step in result.steps.values() if step.name.endswith("script")]
    assert result.state == "failed"
    assert states == ["failed"] * 500


def test_a_container_that_an_engine_cannot_start_is_removed(
    execute, script, docker_engine, monkeypatch
):
    import docker

    def refused(_):
        raise docker.errors.APIError("could not find bridge docker0")

    monkeypatch.setattr("docker.models.containers.Container.start", refused)

    @dsl.pipeline(name="refused")
    def pipeline():
        script(code="exit 0")

    assert "did not start the container (could not find" in execute(pipeline, engine="docker").error
    label = {"label": f"plateline={os.getpid()}"}
    assert docker.from_env().containers.list(all=True, filters=label) == []
