"""A broken package is refused for the one fault that it has; a good one is not."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kfp import compiler, dsl

from pipeline.errors import PipelineError
from pipeline.kubeflow.conformance.suite.packages import language
from pipeline.spec.lint import lint

BROKEN = Path(__file__).parent / "broken"
ROOT = Path(__file__).parents[3]
FAULTS = sorted(p for p in BROKEN.glob("*.yaml") if not p.stem.startswith(("good", "unreadable")))
IMAGE = "localhost/x@sha256:" + "0" * 64


def test_a_good_package_has_no_fault():
    assert lint(BROKEN / "good.yaml") == []


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_each_fault_is_found_where_it_is_and_nothing_else(path):
    """The file's name starts with the rule; its first line says the place."""
    where = path.read_text().splitlines()[0].removeprefix("# fault at: ")
    found = lint(path)
    assert {finding.where.partition(" ")[0] for finding in found} == {where.partition(" ")[0]}
    assert {path.stem.startswith(finding.rule) for finding in found} == {True}
    assert all(";" in finding.message for finding in found), "a message holds the way out"


@pytest.mark.parametrize("path", sorted(BROKEN.glob("unreadable*")), ids=lambda path: path.stem)
def test_what_is_no_package_is_an_error_with_a_next_step(path):
    with pytest.raises(PipelineError, match=r"is not a compiled pipeline .*invoke compile"):
        lint(path)


def test_a_missing_file_is_named():
    with pytest.raises(PipelineError, match=r"absent\.yaml failed"):
        lint(Path("absent.yaml"))


def test_every_fault_of_a_package_is_listed_not_only_the_first(tmp_path):
    text = (BROKEN / "image-without-digest.yaml").read_text()
    path = tmp_path / "two.yaml"
    path.write_text(text.replace("maxRetryCount: 2", "maxRetryCounts: 2"))
    assert {finding.rule for finding in lint(path)} == {"image-without-digest", "unknown-field"}


def test_a_version_as_the_api_server_gives_it_back_is_read(tmp_path):
    spec, platform = yaml.safe_load_all((BROKEN / "cache-key.yaml").read_text())
    path = tmp_path / "version.json"
    path.write_text(json.dumps({"pipeline_spec": spec, "platform_spec": platform}))
    assert [finding.rule for finding in lint(path)] == ["cache-key"]


@dsl.container_component
def work(text: str):
    return dsl.ContainerSpec(IMAGE, ["echo"], [text])


@pytest.mark.parametrize("registered", [True, False])
def test_the_way_out_for_a_resource_parameter_is_one(tmp_path, registered):
    @dsl.pipeline(name="resources")
    def resources(cpu: str = "1"):
        with dsl.ParallelFor(["a"]) as item:
            task = work(text=item).set_cpu_limit(cpu)
            if registered:
                task.register_pipeline_channels([cpu])

    path = tmp_path / "package.yaml"
    compiler.Compiler().compile(resources, str(path))
    rules = [finding.rule for finding in lint(path)]
    assert rules == ([] if registered else ["resource-parameter"])


def test_a_lightweight_component_of_python_is_refused_for_its_tag_only(tmp_path):
    @dsl.component
    def hello(name: str) -> str:
        return name

    @dsl.pipeline(name="light")
    def light(name: str = "x") -> str:
        return hello(name=name).output

    path = tmp_path / "package.yaml"
    compiler.Compiler().compile(light, str(path))
    assert [finding.rule for finding in lint(path)] == ["image-without-digest"]


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("cycle", 1)])
def test_the_task_ends_with_one_where_there_is_a_fault(name, code):
    done = subprocess.run(
        [sys.executable, "-m", "cli", "lint", str(BROKEN / f"{name}.yaml"), "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert [finding["rule"] for finding in json.loads(done.stdout)["findings"]] == ["cycle"] * code


def places(node, path=()):
    """Every place in a document, as the keys that lead there."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def changed(document, path, value):
    copy = json.loads(json.dumps(document))
    node = copy
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return copy


GOOD = list(yaml.safe_load_all((BROKEN / "good.yaml").read_text()))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(places(GOOD), key=repr)),
    st.sampled_from([None, "", "x", "{{$}}", 0, -1.5, True, [], ["x"], {}, {"x": "y"}]),
)
def test_a_package_damaged_anywhere_gives_findings_or_one_error_never_a_crash(path, value):
    if len(path) == 1:
        path = (*path, next(iter(GOOD[path[0]])))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "package.yaml")
        file.write_text(yaml.dump_all(changed(GOOD, path, value), Dumper=yaml.CSafeDumper))
        try:
            found = lint(file)
        except PipelineError:
            return
        assert all(isinstance(finding.message, str) for finding in found)


def test_a_reference_that_is_lost_anywhere_is_found(tmp_path):
    """Every task, component, executor and definition that something refers to is needed."""
    free = {"taskInfo", "isOptional", "defaultValue", "cachingOptions", "retryPolicy", "args"}
    needed = {"comp-make", "comp-read", "exec-make", "exec-read", "make", "inner", "image", "made",
              "executorLabel", "componentRef", "producerTask", "outputParameterKey", "said",
              "texts", "pipelinechannel--claim"}  # fmt: skip
    wanted = [
        path for path in places(GOOD[0]) if path[-1] in needed and not free.intersection(path)
    ]
    file = tmp_path / "package.yaml"
    assert len(wanted) > 40
    for path in wanted:
        file.write_text(
            yaml.dump_all([changed(GOOD[0], path, None), GOOD[1]], Dumper=yaml.CSafeDumper)
        )
        try:
            found = lint(file)
        except PipelineError:
            continue
        assert found, f"without {'.'.join(map(str, path))} nothing was found"


# What runs here, as the SDK means it, and was seen to do otherwise on KFP's own programs.
HERE_ONLY = {
    "metadata of an importer": {"literal-placeholder"},
    "metadata": {"literal-placeholder"},
    "optional input left out": {"default-in-argument"},
    "concatenation": {"concat-placeholder"},
    "loop in a loop": {"concat-placeholder"},
    "loop over a parameter": {"mismatched-type"},
}


@pytest.mark.parametrize("name", sorted(language(IMAGE)))
def test_packages_that_run_are_not_refused(name, tmp_path):
    path = tmp_path / "package.yaml"
    compiler.Compiler().compile(language(IMAGE)[name].pipeline, str(path))
    assert {finding.rule for finding in lint(path)} == HERE_ONLY.get(name, set())


def test_what_others_write_is_not_refused_without_reason(tmp_path):
    from kfp import kubernetes

    @dsl.component(base_image=IMAGE)
    def light(name: str, data: dsl.Input[dsl.Dataset], n: int = 3) -> str:
        return name * n

    @dsl.component(base_image=IMAGE)
    def many(found: dsl.Input[list[dsl.Dataset]], token_count: int, secret_name: str):
        print(found, token_count, secret_name)

    @dsl.component(base_image=IMAGE)
    def make(name: str, made: dsl.Output[dsl.Dataset]):
        made.path = name

    @dsl.pipeline(name="others", pipeline_root="s3://bucket/root")
    def others(uri: str = "gs://b/x", memory: str = "1Gi", node: dict = {"pool": "gpu"}):  # noqa: B006
        data = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, metadata={"k": uri})
        task = light(name="x", data=data.output).set_memory_limit(memory).set_display_name("X")
        kubernetes.use_secret_as_env(task, "login", {"password": "HUB_PASSWORD"})
        kubernetes.add_node_selector_json(task, node)
        kubernetes.add_toleration(task, key="gpu", operator="Exists")
        kubernetes.use_config_map_as_volume(task, "settings", "/settings")
        claim = kubernetes.CreatePVC(
            pvc_name_suffix="-x", access_modes=["ReadWriteOnce"], size="1Gi",
            storage_class_name="standard",
        )  # fmt: skip
        kubernetes.mount_pvc(task, claim.outputs["name"], "/claim")
        with dsl.ParallelFor(["a", "b"], parallelism=2) as item:
            made = make(name=item).set_env_variable("TOKEN_FILE", "/secret/token")
            kubernetes.mount_pvc(made, claim.outputs["name"], "/claim")
            kubernetes.empty_dir_mount(made, "v", "/v")
        many(found=dsl.Collected(made.outputs["made"]), token_count=3, secret_name="login")
        kubernetes.DeletePVC(pvc_name=claim.outputs["name"]).after(made)

    path = tmp_path / "package.yaml"
    compiler.Compiler().compile(others, str(path))
    assert {finding.rule for finding in lint(path)} == {"literal-placeholder"}
    path.write_text(path.read_text().replace("{{$.inputs.parameters[''metadata'']}}", "fixed"))
    assert lint(path) == []
