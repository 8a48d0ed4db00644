"""What really happened in a simulated batch: for tests and studies, never for a stage."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crosswatch.synthetic.camera import Picture
from crosswatch.synthetic.clocks import Delivery, DeviceClock
from crosswatch.synthetic.glow import Glow
from crosswatch.synthetic.noise import FloatArray, TimeArray
from crosswatch.synthetic.schedule import Schedule

NO_EVENT = -1


@dataclass(frozen=True, kw_only=True)
class BatchTruth:
    """Truth of one batch; arrays have one entry a delivered frame."""

    clock: DeviceClock
    microphone: DeviceClock | None
    """None where the batch has no sound."""
    mid_offset_s: float
    """t_control - t_camera in the middle of the batch."""
    events: tuple[dict[str, float], ...]
    """onset_s, apex_s, offset_s and more, as in truth.json."""
    control_s: TimeArray
    """When each frame was exposed, on the control system's clock."""
    event: NDArray[np.int16]
    """Index into `events`, or -1; a frame is abnormal from onset to offset."""
    mist_share: FloatArray
    """Mean opacity of the mist over the frame."""
    spot_mist_share: FloatArray
    """Mean opacity of the mist over the spot; NaN where there is none."""
    masks: NDArray[np.bool_]
    """(frames, height, width); empty in normal frames."""


class TruthRecorder:
    """Collects the truth frame by frame while a batch is rendered."""

    def __init__(self, control_s: TimeArray, spots: tuple[Glow, ...], *, frame_px: int) -> None:
        self.control_s = control_s
        self.spots = spots
        self.frame_px = frame_px
        self.event = np.full(control_s.size, NO_EVENT, dtype=np.int16)
        self.mist_share = np.zeros(control_s.size, dtype=np.float32)
        self.spot_mist_share = np.full(control_s.size, np.nan, dtype=np.float32)
        self._packed: list[NDArray[np.uint8]] = []

    def see(self, index: int, picture: Picture) -> None:
        """Note one frame's event, mask and mist."""
        self.mist_share[index] = picture.mist.mean()
        time_s = float(self.control_s[index])
        for number, spot in enumerate(self.spots):
            if spot.shines_at(time_s):
                mask = spot.mask_at(time_s)
                self.event[index] = number
                self._packed.append(np.packbits(mask))
                if mask.any():
                    self.spot_mist_share[index] = picture.mist[mask].mean()

    def write(
        self,
        folder: Path,
        *,
        clock: DeviceClock,
        microphone: DeviceClock | None,
        delivery: Delivery,
        schedule: Schedule,
    ) -> None:
        """Write truth.json and frames.npz."""
        middle_s = schedule.duration_s / 2
        clocks = {"clock": _described(clock, middle_s, "camera")}
        if microphone is not None:
            clocks["microphone"] = _described(microphone, middle_s, "microphone")
        summary = {
            **clocks,
            "frames": {
                "delivered": int(delivery.doubled.size),
                "doubled": int(delivery.doubled.sum()),
                "dropped": delivery.dropped_count,
                "gap_start_camera_s": delivery.gap_start_s,
                "gap_s": delivery.gap_s,
            },
            **asdict(schedule),
        }
        text = json.dumps(summary, indent=1) + "\n"
        (folder / "truth.json").write_text(text, encoding="utf-8")
        packed = np.stack(self._packed) if self._packed else np.zeros((0, 0), np.uint8)
        np.savez_compressed(
            folder / "frames.npz",
            control_s=self.control_s,
            event=self.event,
            mist_share=self.mist_share,
            spot_mist_share=self.spot_mist_share,
            frame_px=np.int64(self.frame_px),
            masks_packed=packed,
        )


def read_truth(folder: Path) -> BatchTruth:
    """Read `truth/<batch-id>`, masks unpacked."""
    summary = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    with np.load(folder / "frames.npz") as arrays:
        event = arrays["event"]
        px = int(arrays["frame_px"])
        masks = np.zeros((event.size, px, px), dtype=np.bool_)
        bits = np.unpackbits(arrays["masks_packed"], axis=1)[:, : px * px]
        masks[event != NO_EVENT] = bits.reshape(-1, px, px).astype(np.bool_)
        return BatchTruth(
            clock=_clock(summary["clock"]),
            microphone=_clock(summary["microphone"]) if "microphone" in summary else None,
            mid_offset_s=summary["clock"]["mid_batch_offset_s"],
            events=tuple(summary["events"]),
            control_s=arrays["control_s"],
            event=event,
            mist_share=arrays["mist_share"],
            spot_mist_share=arrays["spot_mist_share"],
            masks=masks,
        )


def _described(clock: DeviceClock, middle_s: float, device: str) -> dict[str, float]:
    return {
        **asdict(clock),
        f"mid_batch_{device}_s": middle_s,
        "mid_batch_offset_s": clock.offset_at(middle_s),
    }


def _clock(described: dict[str, float]) -> DeviceClock:
    return DeviceClock(offset_s=described["offset_s"], drift_ppm=described["drift_ppm"])
