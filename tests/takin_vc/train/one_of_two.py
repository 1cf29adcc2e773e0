"""One of several processes of a training: `torchrun --nproc_per_node 2 one_of_two.py settings…`.

Writes a hash of all that it holds afterwards to OUT/RANK.
"""

import os
import sys
from pathlib import Path

from takin_vc.config import load
from takin_vc.tensors import fingerprint
from takin_vc.train import stages

settings = load(sys.argv[1:], "train")
train = stages.train


def and_tell(stage, *arguments, **named):
    result = train(stage, *arguments, **named)
    held = fingerprint(stage.module.state_dict())
    (Path(settings["out"]) / os.environ["RANK"]).write_text(held, encoding="utf-8")
    return result


stages.train = and_tell
stages.run(settings)
