"""The validate stage: judges the models that will be served on wells they never saw."""
