import torch
from calls import record


class MelSpectrogramFixed(torch.nn.Module):
    def __init__(self, **kwargs):
        record("MelSpectrogramFixed", kwargs)
        super().__init__()

    def forward(self, x):
        return torch.zeros(len(x), 80, x.shape[1] // 320)
