"""One of several processes of a training: `torchrun --nproc_per_node 2 one_of_two.py settings…`.

Writes a hash of all that it holds afterwards to OUT/RANK.
"""

import os
import sys

from takin_vc.tensors import fingerprint
from takin_vc.train import __main__ as program
from takin_vc.train import run as stages

train = stages.train


def and_tell(stage, settings, folder, **named):
    result = train(stage, settings, folder, **named)
    held = fingerprint(stage.module.state_dict())
    (folder.parent / os.environ["RANK"]).write_text(held, encoding="utf-8")
    return result


stages.train = and_tell
sys.exit(program.main(sys.argv[1:]))
