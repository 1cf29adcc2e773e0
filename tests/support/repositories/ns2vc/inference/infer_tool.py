from pathlib import Path

import numpy
import soundfile
import torch
import vocos.pretrained
from calls import record


def pad_array(arr, target_length):
    return numpy.pad(arr, (0, target_length - len(arr)))


class Svc:
    def __init__(self, model_path, config_path, device=None):
        record("Svc", locals())
        assert Path("hubert/checkpoint_best_legacy_500.pt").is_file()
        local = vocos.pretrained.hf_hub_download(repo_id="hub", filename="config.yaml")
        assert Path(local).is_file()
        self.target_sample = 24000
        self.vocos = torch.nn.Identity()

    def infer(
        self,
        tran,
        raw_path,
        refer_path,
        auto_predict_f0=False,
        f0_filter=False,
        F0_mean_pooling=False,
        cr_threshold=0.05,
    ):
        record("infer", locals())
        samples, rate = soundfile.read(raw_path)
        speech = torch.full((len(samples) * self.target_sample // rate,), 0.25)
        return speech, len(speech)
