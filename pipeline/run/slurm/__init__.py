"""The steps of a run as jobs of Slurm: one job a container, by bubblewrap on the job's node."""
