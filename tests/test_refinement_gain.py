"""What refinement is for: masks that meet the truth better than the boxes they came from."""

from pathlib import Path

from benchmarks.refine import overlaps
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.synthetic import SimulateConfig, batch_id, read_truth, simulate_batch


def test_refined_masks_meet_the_truth_by_a_tenth_more_than_propagated_boxes(tmp_path: Path) -> None:
    config = SimulateConfig(minutes=3.0, events_min=3, events_max=5, seed=3001)
    simulate_batch(config, 0, arrivals=tmp_path / "arrivals", truth=tmp_path / "truth")
    # Three minutes are too few to estimate the clocks' difference.
    lag_s = read_truth(tmp_path / "truth" / batch_id(0)).mid_offset_s
    rows = overlaps(tmp_path, SyncConfig(estimate="given", camera_lag_s=lag_s))
    _, coarse, fine = rows.T
    assert len(rows) > 50
    assert fine.mean() >= coarse.mean() + 0.10
