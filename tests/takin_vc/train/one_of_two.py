"""One of several processes of trainings, one after the other:
`torchrun --nproc_per_node 2 one_of_two.py STAGE,STAGE settings…`.

Writes a hash of each trained module to OUT/STAGE.RANK.
"""

import os
import sys

from accelerate import PartialState

from takin_vc.tensors import fingerprint
from takin_vc.train.__main__ import main
from takin_vc.train.loop import Trainer

run = Trainer.run


def run_and_write_hash(trainer):
    result = run(trainer)
    digest = fingerprint(trainer.stage.module.state_dict())
    path = trainer.folder.with_name(f"{trainer.folder.name}.{os.environ['RANK']}")
    path.write_text(digest, encoding="utf-8")
    return result


Trainer.run = run_and_write_hash
PartialState.destroy_process_group = lambda state, group=None: None  # the next stage needs it
stages, *settings = sys.argv[1:]
sys.exit(max(main([f"stage={stage}", *settings]) or 0 for stage in stages.split(",")))
