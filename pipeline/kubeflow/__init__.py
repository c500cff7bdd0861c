"""Kubeflow Pipelines: is a cluster ready for a package, and starting a run there."""
