"""Teach a BERT what readers click: fine-tuning on the counts of past campaigns."""

from .campaigns import PastCampaign
from .evaluation import Measure
from .report import Epoch, TuningReport
from .settings import TuningSettings
from .tune import tune

__all__ = ["Epoch", "Measure", "PastCampaign", "TuningReport", "TuningSettings", "tune"]
