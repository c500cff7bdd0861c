"""The tests compute as the stage does: deterministically."""

from train.stage import make_deterministic

make_deterministic()
