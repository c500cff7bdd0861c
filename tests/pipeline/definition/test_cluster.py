"""The table [cluster] of the settings file reaches the package, and a wrong one is named."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builder.toml import line
from pipeline.definition import plate_to_model
from pipeline.definition.cluster import Cluster, Place, Toleration, Workspace, read
from pipeline.definition.settings import Settings
from pipeline.definition.stages import MODEL, PIPELINES, TARGETS
from pipeline.errors import PipelineError
from pipeline.spec.lint import lint
from pipeline.spec.sdk import compiler

IMAGES = {name: f"example.org/{name}@sha256:{'0' * 64}" for name in TARGETS}
WHOLE = """\
# Our lab's cluster.
[cluster]
service-account = "runner"
image-pull-secrets = ["regcred"]
node-selector = { "kubernetes.io/arch" = "amd64", pool = "cpu" }
tolerations = [{ key = "lab", value = "x", effect = "NoSchedule" }]
ttl-seconds-after-finished = 86400
ttl-seconds-after-failure = 604800
active-deadline-seconds = 200000

[cluster.workspace]
size = "10Gi"
storage-class = "fast"
access-modes = ["ReadWriteMany"]

[cluster.stages.train]
cpu = ["4", "8"]
memory = ["8Gi", "16Gi"]
seconds = 7200
node-selector.pool = "gpu"
tolerations = [{ key = "gpu", operator = "Exists", effect = "NoExecute", seconds = 60 }]
"""


@pytest.fixture
def settings(tmp_path):
    def do(text):
        path = tmp_path / "plateline.toml"
        path.write_text(text)
        return read(path)

    return do


def compiled(tmp_path, cluster):
    path = tmp_path / "package.yaml"
    compiler().compile(plate_to_model.build(IMAGES, Settings(cluster=cluster)), str(path))
    return path


def test_every_setting_reaches_the_package(settings, tmp_path):
    cluster = settings(WHOLE)
    path = compiled(tmp_path, cluster)
    assert lint(path) == []
    spec, platform = yaml.safe_load_all(path.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(executors) == len(PIPELINES[MODEL])
    for name, asked in executors.items():
        pool = "gpu" if "train" in name else "cpu"
        assert asked["nodeSelector"]["labels"] == {"kubernetes.io/arch": "amd64", "pool": pool}
        assert asked["imagePullSecret"] == [
            {"secretName": "regcred",
             "secretNameParameter": {"runtimeValue": {"constant": "regcred"}}}
        ]  # fmt: skip
        lab, *gpu = asked["tolerations"]
        assert lab == {"key": "lab", "operator": "Equal", "value": "x", "effect": "NoSchedule"}
        assert [one["tolerationSeconds"] for one in gpu] == (["60"] if pool == "gpu" else [])
    train = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert (train["resourceCpuLimit"], train["resourceMemoryLimit"]) == ("8", "16Gi")
    assert executors["exec-train"]["activeDeadlineSeconds"] == "7200"
    config = platform["platforms"]["kubernetes"]["pipelineConfig"]
    assert config == {
        "activeDeadlineSeconds": 200000, "resourceTtlOnCompletion": 86400,
        "resourceTtlOnFailure": 604800,
        "workspace": {"size": "10Gi", "kubernetes": {"pvcSpecPatch": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "fast"}}},
    }  # fmt: skip
    assert cluster.service_account == "runner"


def test_retries_fit_the_time_limit_of_the_settings(settings, tmp_path):
    """The window of the retries must let the last one begin: see pipeline.spec.retries."""
    path = compiled(tmp_path, settings("[cluster.stages.train]\nseconds = 100000\n"))
    assert lint(path) == []


@pytest.mark.parametrize("text", ["", "[cluster]\n", "[cluster.stages]\n", "# nothing\n"])
def test_a_file_that_sets_nothing_is_as_no_file(settings, text):
    assert settings(text) == Cluster() == Settings().cluster


def test_without_settings_the_package_is_the_same_bytes(settings, tmp_path):
    plain = compiled(tmp_path, Cluster()).read_bytes()
    assert compiled(tmp_path, settings("# nothing\n")).read_bytes() == plain


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        ("[cluster]\nservice-acount = 'x'", 2, "service-acount.*did you mean service-account"),
        ("[clusters]\n", 1, "clusters.*did you mean cluster"),
        ("cluster = 3", 1, "must be a table"),
        ("[cluster]\nservice-account = 3", 2, "must be text"),
        ("[cluster]\n\nservice-account = 'A B'", 3, "refused"),
        ("[cluster]\nimage-pull-secrets = 'x'", 2, "list of texts"),
        ("[cluster]\nimage-pull-secrets = ['../x']", 2, "refused"),
        ("[cluster.stages.trian]\ncpu = ['1', '2']", 1, "trian.*did you mean train"),
        ("[cluster.stages.train]\ncpu = ['1']", 2, "two parts"),
        ("[cluster.stages.train]\ncpu = ['3', '2']", 2, "more than its limit"),
        ("[cluster.stages.train]\ncpu = ['0', '0']", 2, "no number of cores"),
        ("[cluster.stages.train]\nmemory = ['1Gi', '512Mi']", 2, "more than its limit"),
        ("[cluster.stages.train]\nmemory = ['1Go', '2Gi']", 2, "no quantity"),
        ("[cluster.stages.train]\ngpu = 1", 2, "gpu is no setting"),
        ("[cluster.stages.train]\nseconds = 0", 2, "whole number of seconds from 1"),
        ("[cluster]\nttl-seconds-after-finished = true", 2, "whole number"),
        ("[cluster]\nttl-seconds-after-finished = -1", 2, "whole number"),
        ("[cluster]\nactive-deadline-seconds = 99999999999", 2, "whole number"),
        ("[cluster]\nnode-selector = { '-x' = 'y' }", 2, "no key of a label"),
        ("[cluster]\nnode-selector.x = 'y z'", 2, "no value of a label"),
        ("[cluster]\ntolerations = [{ key = 'x', effekt = 'y' }]", 2, "did you mean effect"),
        ("[cluster]\ntolerations = [{ key = 'x', effect = 'Never' }]", 2, "none of NoExecute"),
        ("[cluster]\ntolerations = [{ value = 'x' }]", 2, "needs a key"),
        ("[cluster]\ntolerations = [{ key = 'x', seconds = 3 }]", 2, "NoExecute"),
        ("[[cluster.tolerations]]\nkey = 'x'\noperator = 'Exists'\nvalue = 'y'", 4, "left out"),
        ("[cluster]\nworkspace = {}", 2, "needs a size"),
        ("[cluster.workspace]\nsize = '10 Gi'", 2, "no quantity"),
        ("[cluster.workspace]\nsize = '1Gi'\naccess-modes = ['RW']", 3, "none of ReadWriteOnce"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line(settings, text, number, words):
    with pytest.raises(PipelineError, match=f"plateline.toml, line {number}: .*{words}"):
        settings(text)


@pytest.mark.parametrize("data", [b"[cluster", b"\xff", b"a = 1\na = 2", b"x" * (2 << 20)])
def test_what_is_no_toml_is_said(tmp_path, data):
    (tmp_path / "plateline.toml").write_bytes(data)
    with pytest.raises(PipelineError, match=r"plateline\.toml"):
        read(tmp_path / "plateline.toml")
    with pytest.raises(PipelineError, match="--settings"):
        read(tmp_path / "none.toml")


@given(st.text(), st.lists(st.text(max_size=5), max_size=3).map(tuple))
def test_a_line_is_one_of_the_file(text, keys):
    assert 1 <= line(text, keys) <= max(1, len(text.splitlines()))


def test_the_settings_are_data():
    assert Cluster(
        everywhere=Place(tolerations=(Toleration("x"),)), workspace=Workspace("1Gi")
    ) == Cluster(everywhere=Place(tolerations=(Toleration("x"),)), workspace=Workspace("1Gi"))
