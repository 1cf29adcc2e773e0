from pathlib import Path
from types import SimpleNamespace

from calls import record


def model_init(checkpoint_path, device):
    record("model_init", locals())
    assert Path("pre_trained/contentVec.pt").is_file()
    config = SimpleNamespace(audio=SimpleNamespace(sample_rate=24000), top_k=1)
    return SimpleNamespace(config=config, content_sample_rate=16000), config
