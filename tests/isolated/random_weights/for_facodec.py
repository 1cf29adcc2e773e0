"""Writes random weights of FACodec, at its published size, to a folder.

REPOSITORY (of the environment) names the clone of Amphion.
"""

import importlib.util
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, os.environ["REPOSITORY"])
from models.codec.ns3_codec import FACodecDecoderV2, FACodecEncoderV2

path = Path(__file__).parents[3] / "baselines" / "isolated" / "facodec.py"
spec = importlib.util.spec_from_file_location("adapter", path)
adapter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(adapter)

out = Path(sys.argv[1])
torch.manual_seed(1)
encoder, decoder = FACodecEncoderV2(**adapter.ENCODER), FACodecDecoderV2(**adapter.DECODER)
torch.save(encoder.state_dict(), out / "ns3_facodec_encoder_v2.bin")
torch.save(decoder.state_dict(), out / "ns3_facodec_decoder_v2.bin")
