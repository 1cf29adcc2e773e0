"""Writes random weights of Chatterbox VC to a folder; every part has its published size."""

import sys
from pathlib import Path

import torch
from chatterbox.models.s3gen import S3Gen
from safetensors.torch import save_file

torch.manual_seed(1)
state = {k: v.clone().contiguous() for k, v in S3Gen().state_dict().items()}
save_file(state, Path(sys.argv[1]) / "s3gen.safetensors")
