"""How patiently, how widely and in what pieces data move."""

import dataclasses
import math

from crosswatch.errors import UserError

MIB = 2**20
SMALLEST_PART_MIB, LARGEST_PART_MIB = 5, 5120  # S3's limits of a part; the last may be smaller
MOST_PARTS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferConfig:
    concurrency: int = 8  # requests at a time
    part_mib: float = 16.0  # larger files travel in parts of this size
    patience_s: float = 120.0  # give up when one request has kept failing for so long
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0  # a server that sends nothing for so long has failed

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= 256:
            raise UserError(f"concurrency is {self.concurrency}; it must be from 1 to 256")
        if not SMALLEST_PART_MIB <= self.part_mib <= LARGEST_PART_MIB:
            raise UserError(
                f"part_mib is {self.part_mib:g}; S3 takes parts of "
                f"{SMALLEST_PART_MIB} to {LARGEST_PART_MIB} MiB"
            )
        for name in ("patience_s", "connect_timeout_s", "read_timeout_s"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise UserError(f"{name} is {value:g}; it must be above 0")

    def part_bytes(self, size_bytes: int) -> int:
        """The size of the parts of a file: larger for files that would have too many."""
        needed = math.ceil(size_bytes / MOST_PARTS / MIB) * MIB
        return max(int(self.part_mib * MIB), needed)
