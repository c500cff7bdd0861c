"""Running an image as a process, and the root file systems it runs in."""
