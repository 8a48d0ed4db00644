"""Three clocks, resets, and what is done where one cannot be found."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_streams import Process, filmed, heard, metered, process

from crosswatch.data.sync.align import Timeline
from crosswatch.data.sync.alignment import Alignment, align_batch
from crosswatch.data.sync.clocks import ClockMap
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.errors import BadBatchError

QUICK = SyncConfig(resamples=200)
SECONDS = 240.0
OFFSET_S = 0.6  # of a camera that is reset


def camera(made: Process, *, offset_s: float, seconds: float = SECONDS) -> Timeline:
    camera_s = np.arange(0, seconds, 0.08)
    return Timeline(course=filmed(made, camera_s + offset_s, camera_s), clock="camera")


def control(made: Process, *, seconds: float = SECONDS) -> Timeline:
    return Timeline(course=metered(made, np.arange(0, seconds, 0.5)), clock="control")


def microphone(made: Process, *, offset_s: float, clock: str = "microphone") -> Timeline:
    own_s = np.arange(0, SECONDS, 0.02)
    return Timeline(course=heard(made, own_s + offset_s, own_s), clock=clock)


def with_resets(
    made: Process, cuts_s: list[float], pauses_s: list[float], *, seconds: float = SECONDS
) -> tuple[Timeline, np.ndarray]:
    """A camera that starts anew at 0 after each cut, and the true times of its pictures."""
    true_s, camera_s, pieces = [], [], []
    start_s = 0.0
    for piece, (stop_s, pause_s) in enumerate(
        zip([*cuts_s, seconds], [*pauses_s, 0.0], strict=True)
    ):
        own_s = np.arange(0, stop_s - start_s, 0.08)
        true_s.append(own_s + start_s + OFFSET_S)
        camera_s.append(own_s)
        pieces.append(np.full(own_s.size, piece))
        start_s = stop_s + pause_s
    true = np.concatenate(true_s)
    course = filmed(made, true, np.concatenate(camera_s))
    return Timeline(course=course, clock="camera", pieces=np.concatenate(pieces)), true


def refused(alignment: Alignment) -> str:
    return next((check.refusal for check in alignment.checks if not check.passed), "")


def test_three_clocks_are_each_found_against_the_control_systems() -> None:
    made = process(seed=1, seconds=SECONDS)
    found = align_batch(
        camera(made, offset_s=1.3), control(made), microphone(made, offset_s=-0.8), QUICK
    )
    assert refused(found) == ""
    assert found.reference_clock == "control"
    for stream, offset_s in ((found.video, 1.3), (found.audio, -0.8)):
        assert stream is not None
        clock = stream.main
        assert clock.offset_low_s is not None
        assert clock.offset_high_s is not None
        assert clock.offset_low_s <= offset_s <= clock.offset_high_s
        assert clock.half_width_s is not None
        assert clock.half_width_s < 0.2


def test_sound_on_the_cameras_clock_takes_the_cameras_place() -> None:
    made = process(seed=2, seconds=SECONDS)
    sound = microphone(made, offset_s=1.3, clock="camera")
    found = align_batch(camera(made, offset_s=1.3), control(made), sound, QUICK)
    assert found.audio is not None
    assert found.video is not None
    assert found.audio.main.method == "the camera's: brightness against power"
    assert found.audio.main.offset_s == found.video.main.offset_s
    assert found.audio.main.offset_low_s == found.video.main.offset_low_s


def test_sound_on_the_control_systems_clock_needs_nothing() -> None:
    made = process(seed=2, seconds=SECONDS)
    sound = microphone(made, offset_s=0.0, clock="control")
    found = align_batch(camera(made, offset_s=0.4), control(made), sound, QUICK)
    assert found.audio is not None
    assert found.audio.main.method == "one clock, nothing to align"
    assert found.audio.main.offset_s == 0.0


def test_a_known_lag_of_the_sound_is_taken() -> None:
    made = process(seed=2, seconds=SECONDS)
    config = dataclasses.replace(QUICK, audio_lag_s=40.0, audio_drift_ppm=5.0)
    found = align_batch(
        camera(made, offset_s=0.4), control(made), microphone(made, offset_s=0.1), config
    )
    assert found.audio is not None
    assert found.audio.main.method == "given"
    assert (found.audio.main.offset_s, found.audio.main.drift_ppm) == (40.0, 5.0)


def test_without_a_control_system_the_sound_is_aligned_with_the_pictures() -> None:
    made = process(seed=3, seconds=SECONDS)
    film, sound = camera(made, offset_s=1.0), microphone(made, offset_s=-0.5)
    found = align_batch(film, None, sound, QUICK)
    assert found.reference_clock == "camera"
    assert found.audio is not None
    assert found.video is not None
    assert found.video.main.offset_s == 0.0
    clock = found.audio.main  # sound at t was made at t - 0.5; the camera then said t - 1.5
    assert clock.offset_s == pytest.approx(-1.5, abs=0.06)
    assert clock.offset_low_s is not None
    assert clock.offset_high_s is not None
    assert clock.offset_low_s <= -1.5 <= clock.offset_high_s
    assert clock.method == "loudness against brightness"


def test_a_films_own_sound_is_compared_with_its_pictures_but_not_moved() -> None:
    made = process(seed=3, seconds=SECONDS)
    film, sound = camera(made, offset_s=0.0), microphone(made, offset_s=0.0, clock="camera")
    for config, offset_s in ((QUICK, 0.0), (dataclasses.replace(QUICK, audio_lag_s=0.3), 0.0)):
        audio = align_batch(film, None, sound, config).audio
        assert audio is not None
        assert audio.main.offset_s == offset_s
        assert audio.trace is not None
        assert abs(audio.trace.offsets_s[audio.trace.agreement.argmax()]) <= 0.06
    other = dataclasses.replace(sound, clock="microphone")
    known = dataclasses.replace(QUICK, audio_lag_s=0.3)
    audio = align_batch(film, None, other, known).audio
    assert audio is not None
    assert audio.main.offset_s == 0.3
    assert audio.trace is not None
    assert abs(audio.trace.offsets_s[audio.trace.agreement.argmax()]) <= 0.06


def test_a_batch_goes_on_without_sound_that_says_nothing() -> None:
    made, other = process(seed=4, seconds=SECONDS), process(seed=5, seconds=SECONDS)
    streams = camera(made, offset_s=0.2), control(made), microphone(other, offset_s=0.0)
    found = align_batch(*streams, QUICK)
    assert refused(found) == ""
    assert "loudness and power agree only" in found.audio_left_out
    assert found.warnings[0].startswith("the sound could not be aligned and was left out: loudness")
    required = align_batch(*streams, dataclasses.replace(QUICK, audio_required=True))
    assert "set sync.audio_lag_s" in refused(required)
    assert required.audio_left_out == ""


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    first_s=st.floats(70, 110),
    pause_s=st.floats(0, 40),
    second_pause_s=st.floats(0, 20),
)
def test_each_stretch_between_resets_is_placed(
    seed: int, first_s: float, pause_s: float, second_pause_s: float
) -> None:
    seconds = 420.0
    made = process(seed=seed, seconds=seconds)
    cuts_s = [first_s, first_s + pause_s + 90.0]
    film, true_s = with_resets(made, cuts_s, [pause_s, second_pause_s], seconds=seconds)
    found = align_batch(film, control(made, seconds=seconds), None, QUICK)
    assert refused(found) == ""
    assert found.video is not None
    kept = found.video.kept(film.course.times_s)
    assert (~kept).sum() <= 4  # where stretches meet
    mapped_s = found.video.to_reference(film.course.times_s)[kept]
    assert np.abs(mapped_s - true_s[kept]).max() < 0.15
    assert (np.diff(mapped_s) > 0).all()
    for stretch in found.video.stretches:
        middle_s = (stretch.start_s + stretch.stop_s) / 2
        at = stretch.rows.start + int(np.searchsorted(film.course.times_s[stretch.rows], middle_s))
        truth_s = true_s[at] - film.course.times_s[at]
        assert stretch.clock.offset_low_s is not None
        assert stretch.clock.offset_high_s is not None
        assert stretch.clock.offset_low_s <= truth_s <= stretch.clock.offset_high_s


def test_a_stretch_that_is_too_short_is_left_out_and_told() -> None:
    made = process(seed=6, seconds=SECONDS)
    film, true_s = with_resets(made, [100.0, 112.0], [0.0, 0.0])
    found = align_batch(film, control(made), None, QUICK)
    assert refused(found) == ""
    assert found.video is not None
    kept = found.video.kept(film.course.times_s)
    assert (~kept).sum() == 150  # 12 s at 12.5 Hz
    assert (true_s[~kept] >= 100.6).all()
    assert (true_s[~kept] < 112.6).all()
    assert "1 stretches of the video between resets" in found.warnings[0]
    mapped_s = found.video.to_reference(film.course.times_s)
    assert np.abs(mapped_s - true_s)[kept].max() < 0.15


def test_a_batch_that_loses_too_much_to_resets_is_refused() -> None:
    made = process(seed=6, seconds=SECONDS)
    film, _ = with_resets(made, [100.0, 112.0], [0.0, 0.0])
    strict = dataclasses.replace(QUICK, max_lost_share=0.01)
    message = refused(align_batch(film, control(made), None, strict))
    assert "1 of its stretches, 5% of the video, cannot be placed; 1% may be lost" in message


def test_a_reset_clock_cannot_be_given_or_shared() -> None:
    made = process(seed=6, seconds=SECONDS)
    film, _ = with_resets(made, [100.0], [0.0])
    given_lag = dataclasses.replace(QUICK, estimate="given", camera_lag_s=0.1)
    shared = dataclasses.replace(film, clock="control")
    for alignment in (
        align_batch(film, control(made), None, given_lag),
        align_batch(shared, control(made), None, QUICK),
        align_batch(film, None, None, QUICK),
    ):
        assert "the video's clock was reset 1 times" in refused(alignment)


def test_sound_on_a_cameras_clock_that_was_reset_is_left_out() -> None:
    made = process(seed=6, seconds=SECONDS)
    film, _ = with_resets(made, [100.0], [0.0])
    sound = microphone(made, offset_s=0.0, clock="camera")
    found = align_batch(film, control(made), sound, QUICK)
    assert refused(found) == ""
    assert "which was reset 1 times" in found.audio_left_out


def test_a_note_on_a_reset_clock_is_placed_only_where_it_is_clear() -> None:
    made = process(seed=6, seconds=SECONDS)
    film, _ = with_resets(made, [100.0], [0.0])
    video = align_batch(film, control(made), None, QUICK).video
    assert video is not None
    with pytest.raises(BadBatchError, match=r"it said 50\.000 s 2 times"):
        video.instant(50.0)
    assert video.instant(130.0) == pytest.approx(230.6, abs=0.1)
    assert np.isnan(video.instant(500.0))


def test_triggers_are_surer_than_pictures() -> None:
    made = process(seed=7, seconds=SECONDS)
    pulses_s = np.cumsum(np.random.default_rng(7).uniform(3, 9, 30))
    film = dataclasses.replace(camera(made, offset_s=0.5), triggers_s=pulses_s)
    meter = dataclasses.replace(control(made), triggers_s=pulses_s + 0.5)
    video = align_batch(film, meter, None, QUICK).video
    assert video is not None
    assert video.main.method == "triggers"
    assert video.main.pulses == 30
    assert video.main.offset_s == pytest.approx(0.5, abs=0.001)
    assert video.main.half_width_s is not None
    assert video.main.half_width_s < 0.01


def test_triggers_that_fit_nowhere_are_told_of_or_refused() -> None:
    made = process(seed=7, seconds=SECONDS)
    pulses_s = np.arange(0, 200, 1.0)
    film = dataclasses.replace(camera(made, offset_s=0.5), triggers_s=pulses_s)
    meter = dataclasses.replace(control(made), triggers_s=pulses_s)
    found = align_batch(film, meter, None, QUICK)
    assert refused(found) == ""
    assert found.video is not None
    assert found.video.main.method == "brightness against power"
    assert "triggers were not used for the video" in found.warnings[0]
    insisted = align_batch(film, meter, None, dataclasses.replace(QUICK, estimate="triggers"))
    assert "the triggers fit at" in refused(insisted)
    without = align_batch(
        camera(made, offset_s=0.5),
        control(made),
        None,
        dataclasses.replace(QUICK, estimate="triggers"),
    )
    assert "0 of the video's triggers have a partner" in refused(without)


@settings(max_examples=60, deadline=None)
@given(
    offset_s=st.floats(-1e4, 1e4),
    drift_ppm=st.floats(-500, 500),
    t_mid_s=st.floats(0, 1e4),
    times_s=st.lists(st.floats(0, 1e4), min_size=1, max_size=8),
)
def test_a_map_and_its_inverse_cancel(
    offset_s: float, drift_ppm: float, t_mid_s: float, times_s: list[float]
) -> None:
    clock = ClockMap(method="given", offset_s=offset_s, drift_ppm=drift_ppm, t_mid_s=t_mid_s)
    there_s = clock.to_reference(np.array(times_s))
    np.testing.assert_allclose(clock.inverse().to_reference(there_s), times_s, atol=1e-6)
    restored = ClockMap.restored(clock.described())
    np.testing.assert_array_equal(restored.to_reference(np.array(times_s)), there_s)
