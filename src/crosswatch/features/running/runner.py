"""Run an encoder over batches: in this process, or on actors of Ray Data, with the same result."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType

from crosswatch.features.encoder import Encoder, Failed, Input
from crosswatch.features.running.work import CarefulModel, Done, Job, Refused, device_of, read
from crosswatch.features.settings import ComputeConfig

__all__ = ["Done", "Job", "Refused", "run"]

AHEAD = 4
"""Batches that are read before the model asks for them."""

_Item = tuple[int, Input | Failed | Refused]


def run(
    encoder: Encoder,
    jobs: Sequence[Job],
    compute: ComputeConfig,
    *,
    meter: Callable[[int, int], None] = lambda done, total: None,
) -> Generator[Done | Refused, None, None]:
    """Every row of every job once, in no promised order; of a refused job those that came first.

    The rows' values depend neither on batch_size nor on workers. The model is loaded once (by each
    worker), when the first input is there. Closing the iterator ends all work.

    Args:
        meter: told the rows that need no more work, and all of them.

    Raises:
        UserError: the device or the workers that were asked for are not there; or of the encoder.
        ResourceError: workers of Ray were lost again and again.
    """
    if not any(len(job.rows) for job in jobs):
        return
    if compute.workers:
        from crosswatch.features.running.streaming import stream

        results = stream(encoder, jobs, compute)
    else:
        results = _in_process(encoder, jobs, compute)
    left = [len(job.rows) for job in jobs]
    total = sum(left)
    with contextlib.closing(results):
        for result in results:
            if isinstance(result, Refused):
                left[result.job] = 0
            elif left[result.job]:
                left[result.job] -= 1
            else:
                continue  # a row of a batch that was refused meanwhile
            meter(total - sum(left), total)
            yield result
    assert not any(left), f"{sum(left)} rows were lost"


def _in_process(
    encoder: Encoder, jobs: Sequence[Job], compute: ComputeConfig
) -> Generator[Done | Refused, None, None]:
    device = device_of(encoder, compute.device)
    model: CarefulModel | None = None
    batch: list[tuple[int, Input]] = []
    with _Reader(encoder, jobs, ahead=AHEAD * compute.batch_size) as reader:
        for number, item in reader:
            if isinstance(item, Refused):
                yield item
            elif isinstance(item, Failed):
                yield Done(job=number, row=item.row, value=item)
            else:
                model = model or CarefulModel(encoder.load(device))
                batch.append((number, item))
                if len(batch) == compute.batch_size:
                    yield from _answered(model, batch)
                    batch.clear()
        if model and batch:
            yield from _answered(model, batch)


def _answered(model: CarefulModel, batch: Sequence[tuple[int, Input]]) -> list[Done]:
    values = model([item for _, item in batch])
    return [
        Done(job=number, row=item.row, value=value)
        for (number, item), value in zip(batch, values, strict=True)
    ]


class _Reader:
    """Reads inputs in a thread of its own; what decodes and scales lets go of the interpreter.

    It is ahead by `ahead` rows and the one in its hand, whatever their size and the jobs' number.
    """

    def __init__(self, encoder: Encoder, jobs: Sequence[Job], *, ahead: int) -> None:
        self._encoder = encoder
        self._jobs = jobs
        self._ahead = ahead
        self._items: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = False
        self._stopped = False
        self._thread = threading.Thread(target=self._read, name="read-inputs", daemon=True)

    def __enter__(self) -> "_Reader":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[_Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            for number, job in enumerate(self._jobs):
                with contextlib.closing(read(self._encoder, number, job)) as items:
                    for item in items:
                        if not self._put((number, item)):
                            return
        except BaseException as error:  # raised again where the rows are asked for
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: _Item) -> bool:
        """False: nobody wants any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._ahead)
            if not self._stopped:
                self._items.append(item)
                self._changed.notify_all()
            return not self._stopped
