"""Teach a BERT what readers click: fine-tuning on the counts of past campaigns.

In: past campaigns' texts, impressions, clicks and conversions; an encoder.
Out: a folder with another encoder, its components, and a report of what it gained on campaigns held out.
"""

from .campaigns import PastCampaign
from .evaluation import Measure
from .report import Epoch, TuningReport
from .search import Search, Trial, search_and_tune
from .settings import TuningSettings
from .tune import tune

__all__ = [
    "Epoch",
    "Measure",
    "PastCampaign",
    "Search",
    "Trial",
    "TuningReport",
    "TuningSettings",
    "search_and_tune",
    "tune",
]
