"""One of several processes of a training: `torchrun --nproc_per_node 2 one_of_two.py settings…`.

Writes a hash of the trained module to OUT/RANK.
"""

import os
import sys

from takin_vc.tensors import fingerprint
from takin_vc.train.__main__ import main
from takin_vc.train.loop import Trainer

run = Trainer.run


def run_and_write_hash(trainer):
    result = run(trainer)
    digest = fingerprint(trainer.stage.module.state_dict())
    (trainer.folder.parent / os.environ["RANK"]).write_text(digest, encoding="utf-8")
    return result


Trainer.run = run_and_write_hash
sys.exit(main(sys.argv[1:]))
