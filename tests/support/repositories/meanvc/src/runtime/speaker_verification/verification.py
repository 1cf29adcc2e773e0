import torch
from calls import record


def init_model(model_name, checkpoint=None):
    record("init_model", locals())
    torch.hub.load("s3prl/s3prl", model_name)
    return torch.nn.Identity()
