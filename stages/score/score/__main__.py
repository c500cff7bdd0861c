"""`python3 -m score`: scores one plate."""

from common.stage_io import run_stage

from score.stage import score

if __name__ == "__main__":
    run_stage("score", score)
