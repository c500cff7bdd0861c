"""The tests of a stage, run inside its image: once, or again after each save."""
