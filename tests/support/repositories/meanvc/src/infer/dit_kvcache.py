import modules  # noqa: F401
import torch


class DiT(torch.nn.Module):
    def __init__(self, *, dim, depth=8):
        super().__init__()
