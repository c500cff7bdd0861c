"""What a package asks of a cluster: variables, the cache, a claim, a secret.

KFP reads the annotations of these functions as objects, so they must not be postponed here.
"""

from types import SimpleNamespace

from kfp import dsl, kubernetes

from pipeline.kubeflow.conformance.suite.case import Case

KEY, CONTENT = "key", "conformance"  # of the secret
_AT = "/mnt/conformance"


def cases(c: SimpleNamespace, claim: str, secret: str, mark: str) -> dict[str, Case]:
    """Return name -> case, made of the steps `c`; `mark` is in no cache and in no claim yet."""

    @dsl.pipeline(name="variable")
    def variable() -> str:
        task = c.variable()
        task.set_env_variable("TOLD", "a b")
        return task.output

    @dsl.pipeline(name="cache")
    def cache(mark: str) -> str:
        made = c.make(text=mark)
        known = c.read(one=made.outputs["made"])
        again = c.say(text=known.output)
        again.set_caching_options(False)
        return again.output

    @dsl.pipeline(name="claim")
    def claims(mark: str) -> str:
        kept = c.keep(text="kept", file=f"{_AT}/{mark}")
        shown = c.show(file=f"{_AT}/{mark}").after(kept)
        for task in (kept, shown):
            kubernetes.mount_pvc(task, claim, _AT)
            task.set_caching_options(False)
        return shown.output

    @dsl.pipeline(name="third-time")
    def third_time(mark: str) -> str:
        task = c.third_time(folder=f"{_AT}/tries-{mark}")
        task.set_retry(num_retries=3, backoff_duration="1s")
        task.set_caching_options(False)
        kubernetes.mount_pvc(task, claim, _AT)
        return task.output

    @dsl.pipeline(name="secret-file")
    def secret_file() -> str:
        task = c.show(file=f"{_AT}/{KEY}")
        kubernetes.use_secret_as_volume(task, secret, _AT)
        return task.output

    @dsl.pipeline(name="secret-variable")
    def secret_variable() -> str:
        task = c.variable()
        kubernetes.use_secret_as_env(task, secret, {KEY: "TOLD"})
        return task.output

    return {
        "variable": Case(variable, {"Output": "a b"}),
        "cache": Case(
            cache, {"Output": mark}, {"mark": mark}, runs=2,
            states={"make": "cached", "read": "cached"},
        ),
        "claim": Case(claims, {"Output": "kept"}, {"mark": mark}, claim=True),
        "retry that succeeds": Case(third_time, {"Output": "done"}, {"mark": mark}, claim=True),
        "secret as a file": Case(secret_file, {"Output": CONTENT}, secret=True),
        "secret as a variable": Case(secret_variable, {"Output": CONTENT}, secret=True),
    }  # fmt: skip
