"""The stage score: what a released model says of each well of a plate, and of a whole screen."""
