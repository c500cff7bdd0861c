"""A server of Kubeflow Pipelines: how it is reached, its runs, their steps, artifacts and logs."""
