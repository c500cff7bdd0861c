"""The table of contents: every task, by what one does with it. The bodies are in `cli/`."""

from __future__ import annotations

from invoke import Collection

from cli import (
    cluster,
    demo,
    housekeeping,
    images,
    inspection,
    machine,
    pipeline,
    releases,
    serving,
    testing,
)
from cli.output import teaching

GROUPS = {
    "start": (demo.demo, machine.doctor),
    "build images": (images.build_images, images.push_images, images.lock),
    "look inside": (
        inspection.explain,
        inspection.graph,
        inspection.verify_images,
        inspection.sbom,
        inspection.bake,
    ),
    "run the pipeline": (pipeline.check_plate, pipeline.compile, pipeline.run, cluster.lint),
    "use a cluster": (cluster.preflight, cluster.submit),
    "release": (releases.release, releases.releases, releases.pull_release, releases.diff),
    "serve": (serving.deploy, serving.trace),
    "test": (testing.test, testing.test_stage, testing.shell, testing.lint_code),
    "keep the store": (housekeeping.store, housekeeping.gc),
}

namespace = Collection()
for _tasks in GROUPS.values():
    for _task in _tasks:
        _task.body = teaching(_task.body, _task.name.replace("_", "-"))
        namespace.add_task(_task)
