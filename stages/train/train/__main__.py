"""`python3 -m train`: the train stage."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common.stage_io import run_stage

from train.stage import make_deterministic, prepare_gpus, train

make_deterministic()
prepare_gpus()
run_stage("train", train)
