"""The delivery behind a stored batch: full pictures for encoders that need them.

Finding a delivery again may mean to hash all that lies beside it (an index of hundreds of clips),
and reading one verifies every byte. A process does either once, until a file there changes.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts, config
from crosswatch.data.adapters import Arrival, Found
from crosswatch.data.batches import Batch
from crosswatch.data.deliveries import Deliveries, reopen_deliveries
from crosswatch.data.holding import held
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.library import SOURCE
from crosswatch.data.raw import RawBatch
from crosswatch.data.store.place import Place, parse_place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.video.container import Contents, in_order, read_contents, read_pictures
from crosswatch.data.video.decode import RawVideo
from crosswatch.errors import BadBatchError, UserError

T = TypeVar("T")
Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
MEND = "Put back what was ingested, or deliver the batch again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class OriginalPlace:
    """What is needed to find deliveries again, in any process.

    Attributes:
        ingest: the section of the batch set's manifest, as plain values.
        fetched: where deliveries that lie in a bucket are brought to.
    """

    ingest: Mapping[str, Any]
    fetched: Path
    transfer: TransferConfig


def rgb(picture: Any) -> Picture:
    """A decoded frame by the matrix and the range that its video names; an array as it is."""
    if isinstance(picture, np.ndarray):
        return picture
    shown = np.ascontiguousarray(picture.to_ndarray(format="rgb24", threads=1))
    if picture.format.name == "rgb24":  # nothing was converted: this is the decoder's memory
        return shown.copy()
    return np.asarray(shown, np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Original:
    """A delivery, read by its adapter and held to the digest that the batch was made from.

    Pictures are counted as frame_sources.npy counts them, in order of presentation.

    Attributes:
        path: the delivery's folder or file.
    """

    raw: RawBatch
    path: Path

    @overload
    def pictures(self, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, Picture]]: ...

    @overload
    def pictures(
        self, wanted: npt.NDArray[np.int64], *, convert: Callable[[Any], T]
    ) -> Iterator[tuple[int, T]]: ...

    def pictures(
        self, wanted: npt.NDArray[np.int64], *, convert: Callable[[Any], Any] = rgb
    ) -> Iterator[tuple[int, Any]]:
        """Position and picture of those wanted that can be decoded, in rising order, each once.

        Nothing behind the last one wanted is decoded, and only those wanted are converted.

        Args:
            wanted: positions in any order.
            convert: given, in rising order, a decoded `av.VideoFrame`, or RGB (H, W, 3) where
                pictures come from no video file. Both are the decoder's memory: never written to.

        Raises:
            BadBatchError: the video cannot be opened, or is truncated.
        """
        positions = np.unique(wanted)
        if not positions.size:
            return
        assert 0 <= positions[0] <= positions[-1] < self.count, "pictures that the video has"
        stills = self._video.pictures
        if stills is None:
            found = in_order(read_pictures(self._video.path, self._contents), positions)
        else:
            found = in_order(stills, positions, late=0)
        for at, picture in found:
            yield at, convert(picture)

    @property
    def count(self) -> int:
        """Pictures, decodable or not."""
        stills = self._video.pictures
        return self._contents.count if stills is None else len(stills)

    def keyframes(self) -> npt.NDArray[np.int64]:
        """Rising positions of the pictures that the codec coded on their own; decodes nothing.

        Where a file does not tell the order of presentation, that of coding counts.

        Raises:
            UserError: the pictures come from no video file.
        """
        if self._video.pictures is not None:
            raise UserError(
                f"{self.path.name}: its pictures come from no single video file, so it has no "
                "keyframes of a codec. Set frames.by to uniform or scene."
            )
        return self._contents.keyframes

    @property
    def _video(self) -> RawVideo:
        assert self.raw.video is not None, "a batch without video has no pictures to ask for"
        return self.raw.video

    @functools.cached_property
    def _contents(self) -> Contents:
        return read_contents(self._video.path)


def open_original(place: OriginalPlace, batch: Batch) -> Original:
    """
    Raises:
        BadBatchError: the delivery is gone or was changed.
    """
    where = _where(place, batch)
    return _read(where, _arrival(where, batch.id, batch.digest))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Where:
    """Where a batch came from, and in which state that is."""

    source: tuple[tuple[str, str], ...]
    ingest: IngestConfig
    fetched: Path
    transfer: TransferConfig
    state: str

    @property
    def name(self) -> str:
        return self.source[0][1]

    @property
    def is_elsewhere(self) -> bool:
        return any(not isinstance(place, Path) for place in _places(self.source))


def _where(place: OriginalPlace, batch: Batch) -> _Where:
    try:
        told = artifacts.read_json(batch.folder / SOURCE)
        source = tuple((str(kind), str(name)) for kind, name in told.items())
    except (OSError, ValueError, AttributeError) as error:
        raise BadBatchError(f"its {SOURCE} cannot be read: {error}. Ingest it again.") from error
    if not source:
        raise BadBatchError(f"its {SOURCE} does not say where it came from. Ingest it again.")
    ingest = config.build(IngestConfig, place.ingest, where="ingest")
    return _Where(
        source=source,
        ingest=ingest,
        fetched=place.fetched,
        transfer=place.transfer,
        state=_state(source, ingest),
    )


def _places(source: tuple[tuple[str, str], ...]) -> list[Place]:
    return [parse_place(name) for _, name in source]


def _state(source: tuple[tuple[str, str], ...], ingest: IngestConfig) -> str:
    """Changes with the files that pictures come from, as far as they lie on this machine."""
    seen: list[tuple[str, int, int, int]] = []
    for place in _places(source):
        if not isinstance(place, Path):
            continue
        files = [place]
        if ingest.adapter == "index":  # its clips lie beside it
            files += (place.parent / ingest.index.root).rglob("*")
        elif place.is_dir():
            files += place.rglob("*")
        for file in files:
            with contextlib.suppress(OSError):
                facts = file.stat()
                seen.append((str(file), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns))
    return artifacts.digest_of(sorted(seen))


@functools.lru_cache(maxsize=16)
def _find(where: _Where) -> tuple[Deliveries, Found]:
    deliveries = reopen_deliveries(
        dict(where.source), ingest=where.ingest, fetched=where.fetched, transfer=where.transfer
    )
    with _alone(where.fetched, "find") if where.is_elsewhere else contextlib.nullcontext():
        return deliveries, deliveries.find()


def _arrival(where: _Where, batch_id: str, digest: str) -> Arrival:
    try:
        _, found = _find(where)
    except UserError as error:
        if all(isinstance(place, Path) and not place.exists() for place in _places(where.source)):
            raise BadBatchError(f"its delivery {where.name} is gone. {MEND}") from error
        raise BadBatchError(
            f"its delivery {where.name} cannot be read any more: {error}"
        ) from error
    for arrival in found.arrivals:
        if arrival.id == batch_id and arrival.digest == digest:
            return arrival
    if batch_id in found.unreadable:
        raise BadBatchError(
            f"its delivery {where.name} cannot be read any more: {found.unreadable[batch_id]}"
        )
    raise BadBatchError(f"its delivery {where.name} has changed since it was ingested. {MEND}")


@functools.lru_cache(maxsize=4)
def _read(where: _Where, arrival: Arrival) -> Original:
    deliveries, _ = _find(where)
    is_here, name = arrival.path.exists(), arrival.digest[:12]
    try:
        with contextlib.nullcontext() if is_here else _alone(where.fetched, name):
            raw = deliveries.read(arrival)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise BadBatchError(f"its delivery {where.name} is not whole: {error}. {MEND}") from error
    return Original(raw=raw, path=arrival.path)


def _alone(fetched: Path, name: str) -> AbstractContextManager[None]:
    """One process of this machine at a time brings a delivery here; the others find it."""
    return held(fetched, name, what=f"{fetched}: another run has been fetching")
