"""Retrain, evaluate and promote cross-modal anomaly detectors on every production batch."""

__version__ = "0.1.0"
