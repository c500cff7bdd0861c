"""One step of a run: a container made out of a task, its attempts, and what it leaves."""
