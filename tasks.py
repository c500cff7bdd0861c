"""The table of contents: every task, by what one does with it. The bodies are in `cli/`."""

from __future__ import annotations

from typing import Any

GROUPS = {
    "start": ("demo.demo", "machine.doctor"),
    "build images": (
        "images.build_images",
        "images.push_images",
        "images.lock",
        "images.new_stage",
    ),
    "look inside": (
        "inspection.explain",
        "inspection.graph",
        "inspection.verify_images",
        "inspection.sbom",
        "inspection.licenses",
        "audit.audit",
        "inspection.bake",
    ),
    "run the pipeline": (
        "pipeline.check_plate",
        "pipeline.compile",
        "pipeline.run",
        "scoring.score",
        "cluster.lint",
        "history.runs",
        "history.compare",
    ),
    "use a cluster": ("cluster.preflight", "conformance.conformance", "cluster.submit"),
    "release": (
        "releases.release",
        "releases.releases",
        "releases.pull_release",
        "verification.verify_release",
        "mirror.mirror_release",
        "releases.diff",
        "signing.keygen",
    ),
    "serve": (
        "serving.serve",
        "serving.sign_model",
        "deployment.deploy",
        "deployment.rollback",
        "serving.trace",
    ),
    "test": (
        "testing.test",
        "testing.test_stage",
        "testing.watch",
        "testing.shell",
        "testing.lint_code",
        "testing.bench",
        "attacks.attacks",
    ),
    "keep the store": ("housekeeping.store", "housekeeping.gc", "housekeeping.gc_registry"),
}


def __getattr__(name: str) -> Any:
    """Make `namespace` when invoke itself asks for it, which the wrapper ./invoke does without."""
    if name != "namespace":
        raise AttributeError(f"tasks has no {name}")
    from cli.invocation import collection

    return collection(GROUPS)
