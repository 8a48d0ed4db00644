"""What sync.json says: each stream's clock, what was found and mended, and the limits it met."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from crosswatch.data.spans import Spans, covered_share, silences, span_of
from crosswatch.data.sync.align import Aligned
from crosswatch.data.sync.alignment import Alignment
from crosswatch.data.sync.clocks import MAPPING, Check, FloatArray, at_least
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.sync.lag import SILENT_S

LIMITS = (
    "max_offset_s",
    "max_drift_ppm",
    "max_bound_s",
    "max_gap_s",
    "min_coverage_share",
    "max_lost_share",
    "audio_required",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """One stream of a batch as it is stored."""

    name: str
    aligned: Aligned
    times_s: FloatArray  # on the reference clock; of sound, of its loudness
    rate_hz: float
    counts: Mapping[str, int]  # the same words as in the manifest
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def gaps(self) -> Spans:
        return silences(self.times_s, SILENT_S)


def check_coverage(spans: Spans, batch_s: tuple[float, float], config: SyncConfig) -> Check:
    """Hold the stretches that video and signal cover together to a share of the batch's time."""
    share = covered_share(spans, batch_s)
    return at_least(
        "batch",
        "coverage_share",
        share,
        config.min_coverage_share,
        f"sync outside limits: all streams together cover {share:.0%} of the batch's "
        f"{batch_s[1] - batch_s[0]:.0f} s; {config.min_coverage_share:.0%} are needed "
        "(sync.min_coverage_share). Check the streams for gaps and for other lengths.",
    )


def described(
    identity: Mapping[str, Any],
    alignment: Alignment,
    streams: Sequence[StreamFacts],
    checks: Sequence[Check],
    config: SyncConfig,
    *,
    spans: Spans,
    refused: str = "",
) -> dict[str, Any]:
    """As sync.json stores it, and as a refused batch's report says it."""
    batch_s = span_of([each.times_s for each in streams if each.name != "audio"])
    return {
        **identity,
        "reference_clock": alignment.reference_clock,
        "mapping": MAPPING,
        "streams": {each.name: _stream(each, batch_s) for each in streams},
        "coverage_share": covered_share(spans, batch_s),
        "limits": {name: getattr(config, name) for name in LIMITS},
        "checks": [check.described() for check in checks],
        "passed": not refused,
        "refused": refused or None,
    }


def _stream(facts: StreamFacts, batch_s: tuple[float, float]) -> dict[str, Any]:
    first_s, last_s = float(facts.times_s[0]), float(facts.times_s[-1])
    silent_s = sum(stop - start for start, stop in facts.gaps)
    told = {
        "clock": facts.aligned.clock,
        "rate_hz": facts.rate_hz,
        **facts.extra,
        **facts.aligned.main.described(),
        "coverage_share": (last_s - first_s - silent_s) / max(batch_s[1] - batch_s[0], 1e-9),
        "gaps": [list(gap) for gap in facts.gaps],
        "counts": dict(facts.counts),
    }
    if len(facts.aligned.stretches) > 1:
        told["pieces"] = [
            {
                "start_s": each.start_s,
                "stop_s": each.stop_s,
                "instants": each.rows.stop - each.rows.start,
                "lost": each.lost or None,
                **each.clock.described(),
            }
            for each in facts.aligned.stretches
        ]
    return told
