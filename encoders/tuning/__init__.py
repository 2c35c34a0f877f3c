"""Teach a BERT what readers click: fine-tuning on the counts of past campaigns."""

from .campaigns import PastCampaign
from .evaluation import Measure
from .settings import TuningSettings
from .tune import TuningReport, tune

__all__ = ["Measure", "PastCampaign", "TuningReport", "TuningSettings", "tune"]
