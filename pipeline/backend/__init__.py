"""A package run by Kubeflow Pipelines' own driver and launcher, on this machine's loopback."""
