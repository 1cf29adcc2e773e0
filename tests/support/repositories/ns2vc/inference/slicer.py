import numpy
from calls import record


def cut(audio_path, db_thresh=-30, min_len=5000):
    record("cut", locals())
    return "chunks"


def chunks2audio(audio_path, chunks):
    assert chunks == "chunks"
    return [(True, numpy.zeros(800)), (False, numpy.full(1600, 0.5))], 16000
