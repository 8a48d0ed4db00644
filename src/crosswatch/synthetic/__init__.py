"""A furnace that fails on demand: production batches with known truth, in the arrival layout."""

from crosswatch.synthetic.plant import SimulateConfig, batch_id, simulate_batch
from crosswatch.synthetic.truth import BatchTruth, read_truth

__all__ = ["BatchTruth", "SimulateConfig", "batch_id", "read_truth", "simulate_batch"]
