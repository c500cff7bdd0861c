"""Every rule has a package that breaks it, and one that nearly does and is fine."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import PipelineError
from pipeline.spec.lint import examine, lint
from pipeline.spec.rules.catalogue import BACKENDS, RULES, known_backend
from pipeline.spec.rules.lines import Lines

GOOD = Path(__file__).parent / "broken" / "good.yaml"
ROOT = Path(__file__).parents[3]
DIGEST = "@sha256:" + "0" * 64
INNER, LOOP, AGAIN = (
    f"0/components/{name}/dag/tasks/{task}"
    for name, task in (("comp-inner", "make"), ("comp-for-loop-3", "make"),
                       ("comp-condition-4", "make-2"))
)  # fmt: skip
READ = "0/components/comp-inner/dag/tasks/read"
MAKE = "0/deploymentSpec/executors/exec-make/container"
POD = "1/platforms/kubernetes/deploymentSpec/executors"
TEXT = f"{AGAIN}/inputs/parameters/text/runtimeValue/constant"
EXIT = "0/components/comp-exit-handler-1/dag/tasks"
LOOP_ITEMS = f"{EXIT}/for-loop-3/parameterIterator/items/raw"
NUMBER = "0/root/inputDefinitions/parameters/text"
MODELS = "0/components/comp-inner/inputDefinitions/artifacts/models"
MODEL = {"artifactType": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"},
         "isOptional": True}  # fmt: skip
BRING = "0/deploymentSpec/executors/exec-bring/importer/artifactUri"
GONE = object()
Edits = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """Edits of a good package that break a rule, and some that nearly do; `line` is a part of the
    line that is blamed."""

    line: str
    breaks: Edits = field(default_factory=dict)
    nearly: Edits = field(default_factory=dict)


def importing(source: dict[str, Any]) -> Edits:
    """An importer beside the pipeline `inner`, with its address from `source`."""
    schema = {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}
    executor = {"artifactUri": {"runtimeParameter": "uri"}, "typeSchema": schema}
    return {
        "0/deploymentSpec/executors/exec-bring": {"importer": executor},
        "0/components/comp-bring": {
            "executorLabel": "exec-bring",
            "inputDefinitions": {"parameters": {"uri": {"parameterType": "STRING"}}},
        },
        f"{EXIT}/bring": {
            "componentRef": {"name": "comp-bring"},
            "inputs": {"parameters": {"uri": source}},
        },
    }


def chain(length: int) -> Edits:
    """A pipeline in a pipeline, so many times, around nothing but a step."""
    made: Edits = {"0/root/dag/tasks/deep": {"componentRef": {"name": "d0"}}}
    for number in range(length):
        inner = {"componentRef": {"name": f"d{number + 1}"}} if number < length - 1 else {
            "componentRef": {"name": "comp-last"}}  # fmt: skip
        made[f"0/components/d{number}"] = {"dag": {"tasks": {"next": inner}}}
    return made


PAIRS = {
    "unknown-field": Pair(
        "maxRetryCounts", {f"{AGAIN}/retryPolicy/maxRetryCounts": 2},
        {f"{AGAIN}/retryPolicy/maxRetryCount": 3},
    ),
    "missing-component": Pair(
        "make:", {f"{INNER}/componentRef/name": "comp-makes"},
        {f"{INNER}/componentRef/name": "comp-make-2-2"},
    ),
    "missing-executor": Pair(
        "comp-make:", {"0/components/comp-make/executorLabel": "exec-makes"},
        {"0/components/comp-make/executorLabel": "exec-make-2-2"},
    ),
    "missing-producer": Pair(
        "read:", {f"{READ}/dependentTasks": ["makes"]}, {f"{READ}/dependentTasks": GONE}
    ),
    "missing-output": Pair(
        "one:", {f"{READ}/inputs/artifacts/one/taskOutputArtifact/outputArtifactKey": "mad"},
        {"0/components/comp-inner/dag/outputs/parameters/Output/valueFromParameter/"
         "producerSubtask": "make"},
    ),
    "missing-input": Pair(
        "make:", {f"{INNER}/inputs/parameters/text": GONE},
        {f"{INNER}/inputs/parameters/text": GONE, f"{MAKE}/args": ["{{$}}"],
         "0/components/comp-make/inputDefinitions/parameters/text/defaultValue": "x"},
    ),
    "cycle": Pair(
        "comp-inner:", {f"{INNER}/dependentTasks": ["read"]},
        {f"{EXIT}/condition-4/dependentTasks": ["inner", "join"]},
    ),
    "wrong-type": Pair(
        "text:", {f"{NUMBER}/parameterType": "NUMBER_INTEGER", f"{NUMBER}/defaultValue": 1.5},
        {f"{NUMBER}/parameterType": "NUMBER_INTEGER", f"{NUMBER}/defaultValue": 1.0},
    ),
    "unresolved-channel": Pair(
        "constant:", {TEXT: "{{channel:task=;name=text;type=String;}}"}, {TEXT: "{{ channel }}"}
    ),
    "resource-parameter": Pair(
        "make:", {f"{LOOP}/inputs/parameters/pipelinechannel--cpu": GONE,
                  f"{LOOP}/inputs/parameters/cpu_limit": GONE},
        {f"{LOOP}/inputs/parameters/pipelinechannel--cpu": GONE,
         f"{LOOP}/inputs/parameters/cpu_limit": GONE,
         "0/deploymentSpec/executors/exec-make-2/container/resources/resourceCpuLimit": "1"},
    ),
    "bad-name": Pair(
        "secretName", {f"{POD}/exec-make-2/secretAsVolume/0/secretNameParameter":
                       {"runtimeValue": {"constant": "docker.creds"}}},
        {f"{POD}/exec-make-2/secretAsVolume/0/secretNameParameter":
         {"runtimeValue": {"constant": "d" * 63}}},
    ),
    "bad-path": Pair(
        "mountPath", {f"{POD}/exec-make-2/pvcMount/0/mountPath": "/etc"},
        {f"{POD}/exec-make-2/pvcMount/0/mountPath": "/etc/plates"},
    ),
    "image-without-digest": Pair(
        "exec-make:", {f"{MAKE}/image": "localhost/busybox:1.36"},
        {f"{MAKE}/image": f"localhost/busybox:1.36{DIGEST}"},
    ),
    "secret-in-argument": Pair(
        "env:", {f"{MAKE}/env": [{"name": "HUB_PASSWORD", "value": "x"}]},
        {f"{MAKE}/env": [{"name": "HUB_PASSWORD_FILE", "value": "/secret/password"}]},
    ),
    "store-access": Pair(
        "text:", {TEXT: "localhost/x/model"}, {TEXT: "localhost:5000/x/model"}
    ),
    "too-many-tasks": Pair("root:", chain(50), chain(49)),
    "cache-key": Pair(
        "make:", {f"{INNER}/cachingOptions/cacheKey": "mine"},
        {f"{INNER}/cachingOptions/enableCache": False},
    ),
    "literal-placeholder": Pair(
        "text:", {TEXT: "of {{$.pipeline_job_name}}"}, {TEXT: "{{$.pipeline_job_name}}"}
    ),
    "retry-window": Pair(
        "make-2:", {f"{POD}/exec-make-2-2": {"activeDeadlineSeconds": "7200"}},
        {f"{POD}/exec-make-2-2": {"activeDeadlineSeconds": "1800"}},
    ),
    "memory-for-the-launcher": Pair(
        "resourceMemoryLimit", {f"{MAKE}/resources": {"resourceMemoryLimit": "128Mi"}},
        {f"{MAKE}/resources": {"resourceMemoryLimit": "256Mi"}},
    ),
    "accelerator": Pair(
        "accelerator:", {f"{MAKE}/resources": {"accelerator": {"resourceType": "nvidia.com/gpu"}}},
        {f"{MAKE}/resources": {"accelerator": {"resourceType": "nvidia.com/gpu",
                                               "resourceCount": "1"}}},
    ),
    "time-limit": Pair(
        "activeDeadlineSeconds", {f"{POD}/exec-make": {"activeDeadlineSeconds": "119"}},
        {f"{POD}/exec-make": {"activeDeadlineSeconds": "120"}},
    ),
    "list-in-a-nested-pipeline": Pair(
        "models:", {MODELS: {**MODEL, "isArtifactList": True}}, {MODELS: MODEL}
    ),
    "empty-loop": Pair("for-loop-3:", {LOOP_ITEMS: "[]"}, {LOOP_ITEMS: '[""]'}),
    "importer-of-an-output": Pair(
        "uri:",
        importing({"taskOutputParameter": {"outputParameterKey": "Output",
                                           "producerTask": "inner"}}),
        importing({"componentInputParameter": "pipelinechannel--text"}),
    ),
    "importer-scheme": Pair(
        "artifactUri:",
        importing({"componentInputParameter": "pipelinechannel--text"})
        | {BRING: {"constant": "https://example.org/plate.csv"}},
        importing({"componentInputParameter": "pipelinechannel--text"})
        | {BRING: {"constant": "s3://plates/plate.csv"}},
    ),
    "concat-placeholder": Pair(
        "Concat", {f"{MAKE}/args": ['{"Concat": ["a-", "{{$.inputs.parameters[\'text\']}}"]}']},
        {f"{MAKE}/args": ['{"Concatenated": ["a-"]}', "a-{{$.inputs.parameters['text']}}"]},
    ),
    "default-in-argument": Pair(
        "make:", {f"{INNER}/inputs/parameters/text": GONE,
                  "0/components/comp-make/inputDefinitions/parameters/text/defaultValue": "x"},
        {"0/components/comp-make/inputDefinitions/parameters/text/defaultValue": "x"},
    ),
    "mismatched-type": Pair(
        "text:", {"0/components/comp-make/inputDefinitions/parameters/text/parameterType":
                  "NUMBER_INTEGER"},
        {"0/components/comp-make/inputDefinitions/parameters/text/parameterType":
         "NUMBER_INTEGER", f"{INNER}/inputs/parameters/text":
         {"runtimeValue": {"constant": 3.0}}},
    ),
    # Notes; the good package has some, which the near one has not.
    "writable-claim": Pair("mountPath", {}, {f"{POD}/exec-make-2/pvcMount": []}),
    "image-pull-secret": Pair(
        "image:", {f"{MAKE}/image": f"registry.test/x{DIGEST}"},
        {f"{MAKE}/image": f"registry.test/x{DIGEST}",
         f"{POD}/exec-make": {"imagePullSecret": [{"secretName": "login"}]}},
    ),
    "error-not-retried": Pair("make-2:", {}, {f"{AGAIN}/retryPolicy/maxRetryCount": 0}),
    "uncached-producer": Pair(
        "read:", {f"{INNER}/cachingOptions": {}}, {f"{READ}/cachingOptions": {}}
    ),
    "claim-in-a-cached-step": Pair("make:", {}, {f"{LOOP}/cachingOptions": {}}),
    "cached-exit-task": Pair("last:", {}, {"0/root/dag/tasks/last/cachingOptions": {}}),
}  # fmt: skip


def written(folder: Path, edits: Edits) -> Path:
    documents = list(yaml.load_all(GOOD.read_bytes(), yaml.CSafeLoader))
    for place, value in edits.items():
        *outer, last = [int(part) if part.isdigit() else part for part in place.split("/")]
        node: Any = documents
        for part in outer:
            node = node[part] if isinstance(node, list) else node.setdefault(part, {})
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    path = folder / "package.yaml"
    path.write_text(yaml.dump_all(documents, Dumper=yaml.CSafeDumper, sort_keys=False))
    return path


def rules_of(path: Path) -> tuple[set[str], set[str]]:
    faults, notes = examine(path)
    return {finding.rule for finding in faults}, {finding.rule for finding in notes}


def test_no_rule_lacks_its_pair():
    assert PAIRS.keys() == RULES.keys()


@pytest.mark.parametrize("rule", PAIRS)
def test_what_breaks_a_rule_is_found_in_its_line_with_a_way_out(rule, tmp_path):
    path = written(tmp_path, PAIRS[rule].breaks)
    faults, notes = examine(path)
    kept = faults if RULES[rule].fault else notes
    found = [finding for finding in kept if finding.rule == rule]
    assert found, (faults, notes)
    assert {finding.rule for finding in faults} == ({rule} if RULES[rule].fault else set())
    lines = path.read_text().splitlines()
    assert PAIRS[rule].line in lines[found[0].line - 1]
    assert all(";" in finding.message for finding in found), "a message holds the way out"


@pytest.mark.parametrize("rule", PAIRS)
def test_what_nearly_breaks_a_rule_is_fine(rule, tmp_path):
    faults, notes = rules_of(written(tmp_path, PAIRS[rule].nearly))
    assert faults == set()
    assert rule not in notes


def test_a_rule_of_one_backend_does_not_hold_for_another(monkeypatch, tmp_path):
    path = written(tmp_path, PAIRS["empty-loop"].breaks | PAIRS["image-without-digest"].breaks)
    monkeypatch.setattr("pipeline.spec.rules.catalogue.BACKENDS", (*BACKENDS, "9.9"))
    assert {finding.rule for finding in lint(path, "9.9")} == {"image-without-digest"}
    assert {finding.rule for finding in lint(path)} == {"image-without-digest", "empty-loop"}


@pytest.mark.parametrize("version", ["2.17", "2.17.0", "2.17.3"])
def test_a_patch_of_a_known_version_is_that_version(version):
    assert known_backend(version) == "2.17"


@pytest.mark.parametrize("version", ["2.1", "2.170", "1.8", "", "latest"])
def test_an_unknown_version_is_refused_with_the_known_ones(version):
    with pytest.raises(
        PipelineError, match=r"nothing is known of the backend .*; give one of 2.17"
    ):
        lint(GOOD, version)


def test_lines_are_found_in_what_the_api_server_gives_back(tmp_path):
    spec, platform = yaml.safe_load_all(GOOD.read_text())
    data = json.dumps({"pipeline_spec": spec, "platform_spec": platform}, indent=1).encode()
    line = Lines(data).of("comp-inner.make.text")
    assert '"text"' in data.decode().splitlines()[line - 1]
    assert Lines(data).of("nowhere") == 1


def rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("| `")]


def test_the_page_lists_the_rules_as_they_are():
    page = (ROOT / "docs" / "lint.md").read_text().partition("\n## Bounds")[0]
    assert rows(page) == [
        f"| `{rule.name}` | {'fault' if rule.fault else 'note'} | "
        f"{', '.join([rule.basis, *rule.backends])} | {rule.reason} |"
        for rule in RULES.values()
    ]


def test_the_task_lists_the_rules_and_refuses_an_unknown_backend():
    def task(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", "lint", *words, "--json"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    listed = task("--rules")
    assert listed.returncode == 0, listed.stderr
    assert {rule["name"] for rule in json.loads(listed.stdout)["rules"]} == RULES.keys()
    refused = task(str(GOOD), "--backend", "1.8")
    assert refused.returncode == 1
    assert "give one of 2.17" in refused.stderr + refused.stdout
    found = json.loads(task(str(GOOD)).stdout)
    assert (found["backend"], found["findings"]) == ("2.17", [])
    assert all(note["line"] > 1 and note["reason"] for note in found["notes"])


@pytest.mark.parametrize(
    ("claim", "found"),
    [("plates.2026", {"bad-name"}), ("c" * 64, {"bad-name"}), ("c" * 63, set()), ("", set())],
)
def test_a_claims_name_that_a_parameter_holds_is_one_that_a_volume_may_have(claim, found, tmp_path):
    """The backend names the pod's volume after the claim, and a volume's name is a label."""
    path = written(tmp_path, {"0/root/inputDefinitions/parameters/claim/defaultValue": claim})
    assert rules_of(path)[0] == found
