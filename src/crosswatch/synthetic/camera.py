"""Render what the camera sees and write it as H.264."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from crosswatch.synthetic import difficulty
from crosswatch.synthetic.clocks import Delivery
from crosswatch.synthetic.current import Arc
from crosswatch.synthetic.glow import Glow
from crosswatch.synthetic.noise import (
    FloatArray,
    TimeArray,
    power_law_series,
    relaxing_noise,
    smooth_step,
)
from crosswatch.synthetic.scene import MIST_LEVELS, NOISE_FRAMES, Scene, window
from crosswatch.synthetic.schedule import Schedule, mist_surges

FrameArray = NDArray[np.uint8]
CRF = 20
"""x264's quality: low enough that the barely visible spots survive."""
REPORT_FRAMES = 250
AMBIENT_EDGE_S = 0.6


@dataclass(frozen=True, kw_only=True)
class Course:
    """Light and mist over the delivered frames; each array has one value a frame."""

    times_s: TimeArray
    """True instants on the control system's clock."""
    flame: TimeArray
    ambient: TimeArray
    mist: TimeArray


def plan_course(
    rng: np.random.Generator, schedule: Schedule, arc: Arc, times_s: TimeArray, *, fps: float
) -> Course:
    """Let the flame follow the arc, and light and mist follow their schedule."""
    flicker = 1.0 + difficulty.FLICKER_SHARE * power_law_series(rng, times_s.size, exponent=1.0)
    wisps = relaxing_noise(rng, times_s.size, tau_s=15.0, rate_hz=fps)[0]
    return Course(
        times_s=times_s,
        flame=arc.flame_at(times_s) * np.clip(flicker, 0.4, 1.6),
        ambient=_ambient(schedule, times_s),
        mist=np.clip(0.15 + 0.1 * wisps, 0.0, None) + mist_surges(schedule, times_s),
    )


def _ambient(schedule: Schedule, times_s: TimeArray) -> TimeArray:
    level = np.ones(times_s.size)
    for step in schedule.ambient:
        level += (step.level - level) * smooth_step((times_s - step.start_s) / AMBIENT_EDGE_S)
    return level


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One rendered frame with the mist that lay over it."""

    rgb: FrameArray
    """(px, px, 3)."""
    mist: FloatArray
    """Opacity (px, px)."""


class Camera:
    """Draws one frame after the other; keeps its buffers."""

    def __init__(self, scene: Scene, course: Course, glows: tuple[Glow, ...]) -> None:
        self.scene = scene
        self.course = course
        self.glows = glows
        self._frame = np.empty_like(scene.shell)
        self._mist_colour = np.full_like(scene.shell, 0.0) + np.array(MIST_LEVELS, np.float32)

    def shoot(self, index: int) -> Picture:
        """Expose the frame of this index: light first, then glows, mist and sensor noise."""
        scene, course = self.scene, self.course
        time_s, ambient = float(course.times_s[index]), float(course.ambient[index])
        flame = float(course.flame[index])
        frame = cv2.addWeighted(scene.shell, ambient, scene.flame_lit, flame, 0.0, self._frame)
        self._add_flame(frame, time_s, flame)
        for glow in self.glows:
            if glow.shines_at(time_s):
                cv2.add(frame, glow.light_at(time_s), frame)
        mist = self._mist_at(time_s, float(course.mist[index]))
        veil = self._mist_colour * np.float32(0.75 * ambient + 0.1 * flame)
        veiled = cv2.blendLinear(veil, frame, mist, 1.0 - mist)
        noise = scene.sensor_noise[self._noise_index(index)]
        return Picture(rgb=cv2.add(veiled, noise, dtype=cv2.CV_8U), mist=mist)

    def _add_flame(self, frame: FloatArray, time_s: float, flame: float) -> None:
        """Add tongues that rise with the hot gas; hotter means yellower."""
        shape = self.scene.flame_shape
        size = (shape.shape[0], shape.shape[1])
        scale = size[1] / 128.0
        slow, fast = self.scene.flame_tiles
        tongues = window(slow, size, x_px=9.0 * time_s * scale, y_px=70.0 * time_s * scale)
        sparks = window(fast, size, x_px=-14.0 * time_s * scale, y_px=115.0 * time_s * scale)
        heat = np.maximum(shape * (1.0 + 0.24 * tongues + 0.12 * sparks), 0.0) * np.float32(flame)
        glow = heat / (1.0 + 0.55 * heat)
        colour = cv2.merge([300.0 * glow, 235.0 * glow * glow + 60.0 * glow, 150.0 * glow**3])
        frame[: size[0]] += colour

    def _mist_at(self, time_s: float, density: float) -> FloatArray:
        """Opacity (px, px): two drifting layers, drawn small and enlarged."""
        reach = self.scene.mist_reach
        size = (reach.shape[0], reach.shape[1])
        scale = size[1] / 64.0
        near, far = self.scene.mist_tiles
        layers = window(near, size, x_px=7.0 * time_s * scale, y_px=4.0 * time_s * scale)
        layers = layers + window(far, size, x_px=-4.0 * time_s * scale, y_px=6.0 * time_s * scale)
        depth = np.float32(1.6 * density) * reach * np.maximum(0.62 + 0.2 * layers, 0.0)
        opacity = np.float32(difficulty.MIST_MAX_OPACITY) * (1.0 - np.exp(-depth))
        return np.asarray(cv2.resize(opacity, (size[1] * 2, size[0] * 2)), dtype=np.float32)

    @staticmethod
    def _noise_index(index: int) -> int:
        """Walk through the stored noise in an order that changes from round to round."""
        return (index * 29 + index // NOISE_FRAMES * 7) % NOISE_FRAMES


def shoot_all(camera: Camera, delivery: Delivery) -> Iterator[Picture]:
    """Every delivered frame; a doubled frame is its predecessor's picture again."""
    picture = camera.shoot(0)
    for index, doubled in enumerate(delivery.doubled):
        if not doubled:
            picture = camera.shoot(index)
        yield picture


def write_video(
    path: Path,
    pictures: Iterator[Picture],
    *,
    frame_px: int,
    fps: float,
    count: int,
    see: Callable[[int, Picture], None],
    progress: Callable[[int, int], None],
) -> None:
    """Encode the pictures as H.264 at a nominal rate, handing each to `see` on the way."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1000),
            options={"preset": "veryfast", "crf": str(CRF), "g": "100"},
        )
        stream.width, stream.height, stream.pix_fmt = frame_px, frame_px, "yuv420p"
        stream.codec_context.thread_count = 1
        for index, picture in enumerate(pictures):
            see(index, picture)
            planes = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
            if (index + 1) % REPORT_FRAMES == 0 or index + 1 == count:
                progress(index + 1, count)
        container.mux(stream.encode(None))
