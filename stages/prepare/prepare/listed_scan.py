"""`python3 -m prepare.listed_scan`: the entry point of `listed.scan`."""

from common.stage_io import run_stage

from prepare.listed import scan

if __name__ == "__main__":
    run_stage("prepare.listed_scan", scan)
