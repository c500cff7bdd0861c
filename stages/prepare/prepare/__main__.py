"""`python3 -m prepare`: the stage's entry point."""

from common.stage_io import run_stage

from prepare.stage import prepare

if __name__ == "__main__":
    run_stage("prepare", prepare)
