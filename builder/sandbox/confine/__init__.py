"""What holds a process that runs in an image: limits, control groups, forbidden system calls."""
