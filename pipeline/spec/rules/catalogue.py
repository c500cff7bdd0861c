"""Every rule of lint: why it is one, for which backends it holds, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import PipelineError

BACKENDS = ("2.17",)  # whose driver and launcher were run or read
SEEN = "seen"  # the backend's own programs, or Argo's controller, were run
READ = "read"  # it stands in the backend's source, and was not tried
FORM = "form"  # of the package itself, or of a name in Kubernetes
OURS = "ours"  # of secrets, and of the machine that runs a package here


@dataclass(frozen=True, slots=True)
class Rule:
    """`reason` says what happens without it; `backends` are the versions it holds for, all if
    empty; `basis` is one of the words above; a rule that is no `fault` gives a note."""

    name: str
    reason: str
    basis: str
    backends: tuple[str, ...] = ()
    fault: bool = True

    def holds(self, backend: str) -> bool:
        """Tell whether the rule is one of `backend`."""
        return not self.backends or backend in self.backends


def _of_backend(name: str, reason: str, basis: str, *, fault: bool = True) -> Rule:
    return Rule(name, reason, basis, ("2.17",), fault)


_ALL = (
    Rule("unknown-field", "the backend ignores a field that is misspelt or of another type", FORM),
    Rule("missing-component", "a task runs a component that is not there", FORM),
    Rule("missing-executor", "a component or the Kubernetes part names no executor", FORM),
    Rule("missing-producer", "a task or output waits for a task that is not in the same DAG", FORM),
    Rule("missing-output", "the producer declares no such output", FORM),
    Rule("missing-input", "an input gets no value, which fails its driver, or nothing gives it",
         FORM),
    Rule("cycle", "tasks wait for each other, or a pipeline holds itself", FORM),
    Rule("wrong-type", "a default, a limit or a loop's list is not of its type", FORM),
    Rule("unresolved-channel", "the compiler did not see a parameter inside a string", FORM),
    Rule("resource-parameter", "the pod does not start: the parameter does not reach its loop or "
         "condition", FORM),
    Rule("bad-name", "a name leads out of a run's folder, or Kubernetes does not allow it", FORM),
    Rule("bad-path", "a path leaves its claim, hides what the image needs, or is of the machine",
         FORM),
    Rule("image-without-digest", "an image can change under its name, unnoticed by the cache",
         OURS),
    Rule("secret-in-argument", "everyone who sees the run sees the secret", OURS),
    Rule("store-access", "a step could write images into the store of the machine that runs it",
         OURS),
    Rule("too-many-tasks", "more than 10,000 tasks or 50 levels are not run here", OURS),
    _of_backend("cache-key", "a custom cache key replaces image, arguments and inputs in the key",
                READ),
    _of_backend("literal-placeholder", "the driver and the importer leave the placeholder as it "
                "is", READ),
    _of_backend("retry-window", "Argo begins no retry later than backoff_max_duration after the "
                "first start", SEEN),
    _of_backend("memory-for-the-launcher", "the launcher takes 66 to 103 MB of the step's limit",
                SEEN),
    _of_backend("accelerator", "the backend asks for none without both kind and number, and a pod "
                "for a resource that has another name does not start", READ),
    _of_backend("time-limit", "a step's time limit counts the pull of its image", READ),
    _of_backend("list-in-a-nested-pipeline", "of a list of artifacts, one arrives", SEEN),
    _of_backend("empty-loop", "the driver of who collects from a loop without rounds fails", SEEN),
    _of_backend("importer-of-an-output", "an importer does not get the output of another task, and "
                "fails", SEEN),
    _of_backend("importer-scheme", "an importer fails for an address that is of no object store "
                "it knows, also where it copies nothing", SEEN),
    _of_backend("concat-placeholder", "a ConcatPlaceholder reaches the program as its own JSON",
                SEEN),
    _of_backend("default-in-argument", "a component's default does not reach its command line: the "
                "driver fails, or takes an IfPresent for absent", SEEN),
    _of_backend("mismatched-type", "text that is handed to an input of another type fails its "
                "driver", SEEN),
    _of_backend("writable-claim", "a claim is mounted writable, whatever a step does with it",
                SEEN, fault=False),
    _of_backend("image-pull-secret", "pods get no login for a registry unless the package or the "
                "service account names one", SEEN, fault=False),
    _of_backend("error-not-retried", "a step is tried again where it fails, not where its pod is "
                "evicted or its node is lost", READ, fault=False),
    _of_backend("uncached-producer", "an uncached step makes a new artifact each time, so what "
                "reads it is never taken from the cache", SEEN, fault=False),
    _of_backend("claim-in-a-cached-step", "the cache knows a claim by its name: what lies in it "
                "may be other, or gone", READ, fault=False),
    _of_backend("cached-exit-task", "taken from the cache, an exit task tells how another run "
                "ended", SEEN, fault=False),
)  # fmt: skip
RULES = {rule.name: rule for rule in _ALL}


def known_backend(version: str) -> str:
    """Return the known version that `version` is one of: 2.17 for 2.17.0.

    Raises PipelineError that names the known ones.
    """
    for known in BACKENDS:
        if version == known or version.startswith(f"{known}."):
            return known
    raise PipelineError(
        f"nothing is known of the backend {version!r}; give one of {', '.join(BACKENDS)}, the "
        "nearest to yours, and compare on the cluster itself"
    )
