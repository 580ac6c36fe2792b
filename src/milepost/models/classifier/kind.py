"""LeRobot's reward classifier as one of the kinds of reward models: it is loaded from LeRobot's folder, and not trained here."""

from __future__ import annotations

from milepost.models.classifier.model import RewardClassifier
from milepost.models.registry import ModelKind

MODEL = ModelKind(
    "reward_classifier",
    RewardClassifier.from_pretrained,
    untrainable="LeRobot's reward classifier is read, and not trained here: LeRobot trains neither its spatial pooling nor its projection, "
    "and normalises its images only in training; train a success head instead: milepost train DATASET --model success --output-dir FOLDER",
)
