"""The voiceprint's measure: the equal-error rate."""

import pytest
import torch

from takin_vc.train.stages.voiceprint import equal_error_rate


def test_the_equal_error_rate_of_scores_that_overlap_by_a_quarter():
    same, different = torch.tensor([0.4, 0.6, 0.7, 0.9]), torch.tensor([0.1, 0.2, 0.3, 0.5])
    assert equal_error_rate(same, different) == pytest.approx(0.25)
    assert equal_error_rate(same + 1, different) == 0
