"""Running a compiled package on this machine, in the very images it pins."""
