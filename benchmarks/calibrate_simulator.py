"""How hard is the simulated furnace for each modality alone?

    python benchmarks/calibrate_simulator.py [--quick] [--json] [--seed N]

Random forests on window statistics are trained on some simulated batches and tested on others.
The constants in crosswatch/synthetic/difficulty.py were set so that the balanced accuracies come
near the published unimodal results. Also measured: how well the flame shows the camera's offset
(the curvature of a plain cross-correlation), and what a weighted median filter gains over
propagated boxes. These are studies of the simulator: they read truth/, which no stage does.
"""

import argparse
import json
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold

from crosswatch.annotation.propagate import propagate
from crosswatch.annotation.refine import RefineConfig, box_mask, refine_mask
from crosswatch.annotation.score import mask_iou
from crosswatch.records import Event, Keyframe
from crosswatch.synthetic import BatchTruth, SimulateConfig, batch_id, read_truth, simulate_batch

CALIBRATION_SEED = 1_000
"""Differs from the default seed, so that nobody trains on the batches that set the difficulty."""
HISTORY_S = 60.0
INSTANT_EVERY_S = 0.5
FRAMES, STRIDE = 10, 4
BLOCK_S = 60.0
GRID_PX = 32
REFINE_PX = 64
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one batch contributes."""

    current: Array
    video: Array
    abnormal: NDArray[np.bool_]
    block: NDArray[np.int64]
    sync_error_s: float
    box_iou: Array
    refined_iou: Array
    seconds: float
    video_mb: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="4 batches instead of 8")
    arguments.add_argument("--json", action="store_true", help="print only the last line")
    arguments.add_argument("--seed", type=int, default=CALIBRATION_SEED)
    options = arguments.parse_args()
    count = 4 if options.quick else 8
    with ProcessPoolExecutor(2) as pool:
        batches = list(pool.map(partial(measure_batch, options.seed), range(count)))
    result = {"seed": options.seed, **summarise(batches)}
    if not options.json:
        print(json.dumps(result, indent=1))
    print(json.dumps(result))


def measure_batch(seed: int, index: int) -> Measured:
    """Simulate one batch and reduce it to numbers."""
    with tempfile.TemporaryDirectory() as folder:
        arrivals, truths = Path(folder, "arrivals"), Path(folder, "truth")
        started_s = time.perf_counter()
        config = SimulateConfig(seed=seed)
        simulate_batch(config, index, arrivals=arrivals, truth=truths)
        seconds = time.perf_counter() - started_s
        arrival = arrivals / batch_id(index)
        truth = read_truth(truths / batch_id(index))
        frames = decode(arrival / "video.mp4")
        signal = np.loadtxt(arrival / "signal.csv", delimiter=",", skiprows=1)
        stamps_s = np.loadtxt(arrival / "video_times.csv", delimiter=",", skiprows=1)[:, 1]
        notes = json.loads((arrival / "annotations.json").read_text())
        size_mb = (arrival / "video.mp4").stat().st_size / 1e6
    instants_s = np.arange(HISTORY_S + 3.0, truth.control_s[-1], INSTANT_EVERY_S)
    box_iou, refined_iou = refinement(frames, truth, notes)
    return Measured(
        current=np.stack([current_statistics(signal, at_s) for at_s in instants_s]),
        video=video_statistics(frames, truth.control_s, instants_s),
        abnormal=abnormal_at(truth, instants_s),
        block=index * 1_000 + (instants_s // BLOCK_S).astype(np.int64),
        sync_error_s=offset_error_s(frames, stamps_s, signal, truth),
        box_iou=box_iou,
        refined_iou=refined_iou,
        seconds=seconds,
        video_mb=size_mb,
    )


def decode(path: Path) -> NDArray[np.uint8]:
    """All frames, (frames, height, width, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def abnormal_at(truth: BatchTruth, instants_s: Array) -> NDArray[np.bool_]:
    """Whether an anomaly lasts at each instant."""
    lasts = [
        (instants_s >= event["onset_s"]) & (instants_s <= event["offset_s"])
        for event in truth.events
    ]
    return np.any(lasts, axis=0)


def current_statistics(signal: Array, at_s: float) -> Array:
    """Means, spreads, differences and slopes over nested windows that end at an instant."""
    end = int(np.searchsorted(signal[:, 0], at_s, side="right"))
    history = signal[max(0, end - int(2 * HISTORY_S)) : end, 1:]
    typical = np.median(history, axis=0)
    relative = history / typical - 1.0
    mean = relative.mean(axis=1, keepdims=True)
    columns = np.hstack([relative, mean, relative - mean])
    numbers = [typical / typical.mean()]
    for seconds in (3, 6, 12, 25, 60):
        part = columns[-2 * seconds :]
        step = np.abs(np.diff(part, axis=0))
        slope = part[len(part) // 2 :].mean(axis=0) - part[: len(part) // 2].mean(axis=0)
        numbers += [part.mean(axis=0), part.std(axis=0), step.mean(axis=0), slope]
    return np.concatenate(numbers)


def video_statistics(frames: NDArray[np.uint8], control_s: Array, instants_s: Array) -> Array:
    """Redness and light of the last frames, block by block, against the running background."""
    size = (GRID_PX, GRID_PX)
    reduced = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
    small = np.stack(reduced).astype(np.float32)
    red = (small[..., 0] - 0.5 * (small[..., 1] + small[..., 2]))[:, int(0.4 * GRID_PX) :]
    rows = []
    for at_s in instants_s:
        end = int(np.searchsorted(control_s, at_s, side="right")) - 1
        window = np.arange(end - (FRAMES - 1) * STRIDE, end + 1, STRIDE)
        past = np.arange(max(0, end - int(HISTORY_S * 25)), end, 25)
        present = red[window].mean(axis=0)
        background = np.median(red[past], axis=0)
        rows.append(_video_numbers(small, red, window, past, present, background))
    return np.stack(rows)


def _video_numbers(
    small: NDArray[np.float32],
    red: NDArray[np.float32],
    window: NDArray[np.int64],
    past: NDArray[np.int64],
    present: NDArray[np.float32],
    background: NDArray[np.float32],
) -> Array:
    above = cv2.GaussianBlur(present - background, (0, 0), 0.8)
    local = above - cv2.blur(above, (9, 9))
    recent = red[past[-10:]].mean(axis=0)
    grown = cv2.GaussianBlur(present - recent, (0, 0), 0.8)
    numbers: list[float] = []
    last = cv2.GaussianBlur(red[window[-1] - 2 : window[-1] + 1].mean(axis=0), (0, 0), 0.8)
    last = last - background
    for field in (above, local, grown, last, last - cv2.blur(last, (9, 9))):
        ordered = np.sort(field, axis=None)
        numbers += [*ordered[[-1, -3, -6, -12, -24, -48, len(ordered) // 2, 8]], field.std()]
    row, column = np.unravel_index(int(local.argmax()), local.shape)
    series = red[window, row, column]
    numbers += [row, column, series.std(), series[-1] - series[0]]
    longer = red[past[-20:], row, column] - background[row, column]
    numbers += [longer.mean(), longer[-5:].mean(), longer.max(), float((longer > 5).mean())]
    colour = small[window, row + int(0.4 * GRID_PX), column].mean(axis=0)
    numbers += [*colour, *(small[window].mean(axis=(0, 1, 2)))]
    numbers += [float(small[window, : int(0.3 * GRID_PX)].mean()), float(present.std())]
    return np.asarray(numbers, dtype=np.float64)


def offset_error_s(
    frames: NDArray[np.uint8], stamps_s: Array, signal: Array, truth: BatchTruth
) -> float:
    """Error of the offset that a plain cross-correlation of flame and current finds mid-batch."""
    rows = frames.shape[1] // 3
    flame = frames[:, :rows].mean(axis=(1, 2, 3), dtype=np.float64)
    grid_s = np.arange(5.0, signal[-1, 0] - 5.0, 0.1)
    power = np.interp(grid_s, signal[:, 0], (signal[:, 1:] ** 2).sum(axis=1))
    band = butter(2, [0.02, 0.8], btype="bandpass", fs=10.0, output="sos")
    wanted = sosfiltfilt(band, power)
    lags_s = np.arange(-3.0, 3.0, 0.02)
    smooth = cv2.blur(flame[:, None], (1, 13)).ravel()
    match = [
        float(wanted @ sosfiltfilt(band, np.interp(grid_s, stamps_s + lag_s, smooth)))
        for lag_s in lags_s
    ]
    return float(lags_s[int(np.argmax(match))] - truth.mid_offset_s)


def refinement(
    frames: NDArray[np.uint8], truth: BatchTruth, notes: dict[str, list[dict[str, Any]]]
) -> tuple[Array, Array]:
    """IoU with truth, a frame in five: of propagated boxes and of the same after the filter."""
    scale = REFINE_PX / frames.shape[1]
    classes = ("normal", *sorted({event["class"] for event in notes["events"]}))
    boxes = propagate(truth.control_s, _events(notes), _keyframes(notes, scale), classes)
    box_iou, refined_iou = [], []
    for index in np.flatnonzero(boxes.classes)[::5]:
        mask = _reduced(truth.masks[index].astype(np.float32)) >= 0.5
        box = boxes.corners[index]
        if np.isnan(box[0]) or not mask.any():
            continue
        true = mask.astype(np.uint8)
        refined = refine_mask(_reduced(frames[index]), box, RefineConfig())
        box_iou.append(mask_iou(box_mask(box, REFINE_PX, REFINE_PX), true))
        refined_iou.append(mask_iou(refined, true))
    return np.array(box_iou), np.array(refined_iou)


def _events(notes: dict[str, list[dict[str, Any]]]) -> list[Event]:
    return [
        Event(
            class_name=event["class"],
            **{key: event[key] for key in ("onset_s", "apex_s", "offset_s")},
        )
        for event in notes["events"]
    ]


def _keyframes(notes: dict[str, list[dict[str, Any]]], scale: float) -> list[Keyframe]:
    return [
        Keyframe(
            time_s=frame["time_s"],
            class_name=frame["class"],
            box_xywh_px=tuple(side * scale for side in frame["box_xywh_px"]),
        )
        for frame in notes["keyframes"]
    ]


def _reduced(picture: NDArray[Any]) -> NDArray[Any]:
    return cv2.resize(picture, (REFINE_PX, REFINE_PX), interpolation=cv2.INTER_AREA)


def summarise(batches: list[Measured]) -> dict[str, object]:
    """Leave-batches-out forests, block-bootstrap intervals, and the other figures."""
    abnormal = np.concatenate([batch.abnormal for batch in batches])
    block = np.concatenate([batch.block for batch in batches])
    group = np.repeat(np.arange(len(batches)), [batch.abnormal.size for batch in batches])
    result: dict[str, object] = {"batches": len(batches), "abnormal_share": abnormal.mean()}
    current = np.concatenate([batch.current for batch in batches])
    video = np.concatenate([batch.video for batch in batches])
    for name, features in (
        ("current", current),
        ("video", video),
        ("both", np.hstack([current, video])),
    ):
        guess = predict_held_out(features, abnormal, group)
        result[f"{name}_balanced_accuracy"] = with_interval(abnormal, guess, block)
    errors_s = np.array([batch.sync_error_s for batch in batches])
    box, refined = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("box_iou", "refined_iou")
    )
    result |= {
        "offset_error_s_largest": np.abs(errors_s).max(),
        "box_iou": box.mean(),
        "refined_iou": refined.mean(),
        "refined_gain_by_batch": [b.refined_iou.mean() - b.box_iou.mean() for b in batches],
        "seconds_a_batch": np.mean([batch.seconds for batch in batches]),
        "video_mb_a_batch": np.mean([batch.video_mb for batch in batches]),
    }
    text = json.dumps(result, default=float)
    return json.loads(text, parse_float=lambda number: round(float(number), 4))


def predict_held_out(
    features: Array, abnormal: NDArray[np.bool_], group: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Predict every batch by a forest that has not seen it."""
    guess = np.zeros_like(abnormal)
    for train, test in GroupKFold(n_splits=4).split(features, abnormal, group):
        forest = RandomForestClassifier(
            300, min_samples_leaf=5, class_weight="balanced", n_jobs=2, random_state=0
        )
        guess[test] = forest.fit(features[train], abnormal[train]).predict(features[test])
    return guess


def with_interval(
    abnormal: NDArray[np.bool_], guess: NDArray[np.bool_], block: NDArray[np.int64]
) -> dict[str, float]:
    """Balanced accuracy with its 95 % interval over one-minute blocks."""
    rng = np.random.default_rng(0)
    names, place = np.unique(block, return_inverse=True)
    members = [np.flatnonzero(place == number) for number in range(names.size)]
    scores = []
    for _ in range(500):
        drawn = np.concatenate([members[n] for n in rng.integers(0, names.size, names.size)])
        scores.append(balanced_accuracy_score(abnormal[drawn], guess[drawn]))
    low, high = np.quantile(scores, [0.025, 0.975])
    return {
        "value": float(balanced_accuracy_score(abnormal, guess)),
        "low": float(low),
        "high": float(high),
    }


if __name__ == "__main__":
    main()
