"""The constants that set how hard the simulated furnace is.

They were calibrated once (docs/simulator.md) so that each modality alone reaches about what was
published for it; they are constants and not configuration so that figures stay comparable.
Levels are grey levels of 0..255; shares of a current are relative to its set-point.
"""

# --- what the camera sees of an anomaly
SPOT_PEAK_LEVELS = (110.0, 180.0)
"""Red light that a plain spot adds at its apex."""
FAINT_PEAK_LEVELS = (38.0, 62.0)
"""The same for a barely visible one."""
FAINT_SHARE = 0.16
"""Share of anomalies that are barely visible."""
SPOT_START = 0.32
"""Brightness at onset and offset, relative to the apex."""

# --- what looks like an anomaly and is none
DISTRACTORS_PER_MINUTE = 1.1
LOOKALIKE_SHARE = 0.27
"""Share of the harmless glows that have an anomaly's colour; the others are yellow glare."""
LOOKALIKE_PEAK_LEVELS = (18.0, 70.0)
GLARE_PEAK_LEVELS = (40.0, 110.0)
DISTRACTOR_DURATION_S = (1.5, 6.0)

# --- what hides an anomaly
MIST_SURGES_PER_MINUTE = 1.0
MIST_SURGE_DURATION_S = (8.0, 22.0)
MIST_MAX_OPACITY = 0.85
AMBIENT_STEPS_PER_MINUTE = 0.8
AMBIENT_RANGE = (0.75, 1.3)
SENSOR_NOISE_LEVELS = 2.5

# --- what the current shows of an anomaly
TRACE_DELAY_S = (1.0, 2.2)
TRACE_LAG_S = 0.5
"""Time constant with which the trace builds up and dies away after its delay."""
TRACE_DRIFT_SHARE = 0.06
"""Mean drop of the current of the nearest phase."""
TRACE_FLUCTUATION_GAIN = 2.8
"""By how much the fast fluctuation grows."""

# --- what the current does anyway
FAST_FLUCTUATION_SHARE = 0.020
"""Standard deviation at a time constant of 0.4 s."""
MEDIUM_FLUCTUATION_SHARE = 0.020
"""Standard deviation at a time constant of 2.5 s: what the flame and the current share most."""
SLOW_FLUCTUATION_SHARE = 0.012
"""Standard deviation at a time constant of 25 s."""
CYCLE_SHARE = 0.035
"""Amplitude of the slow smelting cycle."""
FEED_INTERVAL_S = (20.0, 50.0)
FEED_DIP_SHARE = (0.02, 0.06)

# --- how the flame follows the arc
FLAME_GAMMA = 1.5
"""Brightness goes with (arc power) ** gamma."""
FLICKER_SHARE = 0.08
"""Standard deviation of the flame's own 1/f flicker."""

# --- what the microphone hears; amplitudes are shares of full scale
HUM_GAMMA = 1.0
"""Loudness of the hum goes with (arc power) ** gamma: an arc sounds by the change of its power."""
HUM_AMPLITUDE = 0.10
"""Standard deviation of the hum at mean power."""
HUM_FLUTTER_SHARE = 0.06
"""Standard deviation of the hum's own 1/f flutter: slag and charge muffle the arc now and then."""
HUM_SHIVER_SHARE = 0.05
"""Standard deviation of the hum's own quick flutter (0.3 s), which hides most of a restless arc."""
MAINS_WANDER_HZ = 0.02
"""Standard deviation of the mains frequency."""
HISS_AMPLITUDE = 0.02
"""Standard deviation of the gas hiss without mist, before its band takes a quarter of it away."""
HISS_MIST_GAIN = 1.5
"""By how much the densest surge of mist raises the hiss: steam is blown in."""
HISS_FLUTTER_SHARE = 0.2
"""Standard deviation of the hiss's own slow course."""
KNOCKS_PER_S = 0.25
"""Rate at which lumps of charge fall when nothing is fed."""
KNOCK_FEED_RATE_PER_S = 4.0
"""Further knocks while the strongest feed is fresh."""
KNOCK_PEAK = (0.06, 1.2)
"""Loudness of a knock, drawn evenly on a logarithmic scale; the loudest are clipped."""
CRACKLES_PER_S = 4.0
"""Rate of the arc's crackle."""
CRACKLE_TRACE_GAIN = 0.2
"""By how much it rises as the fast fluctuation doubles: all that the sound adds of an anomaly."""
CRACKLE_FEED_GAIN = 0.6
"""By how much it rises while the strongest feed is fresh, so that crackle alone proves nothing."""
CRACKLE_PEAK = (0.2, 0.9)
"""Loudness of a crackle before the band of the hiss takes most of it away."""
