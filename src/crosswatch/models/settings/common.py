"""What the settings of all models have in common."""

import dataclasses
from typing import Literal

from crosswatch.errors import UserError

Task = Literal["instants", "clips", "moments"]
"""What one decision is about: an instant with its history, a whole clip, or, learned from whole
clips alone, every moment of a clip."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Features that a model looks at.

    Attributes:
        name: what the model calls them; modalities: what the features artifact calls them. Those
            of several are joined, at the times of the first.
        most: longest sequence, in tokens; a longer one is cut, or pooled into so many.
        unit: every vector of every modality is put to length 1 first.
    """

    name: str
    modalities: tuple[str, ...]
    most: int
    shorten: Literal["cut", "pool"] = "cut"
    unit: bool = False


def at_least(section: object, **least: float) -> None:
    """Raise UserError for a value below its least."""
    for name, bound in least.items():
        value = getattr(section, name)
        if value < bound:
            raise UserError(f"{name} is {value}; allowed {bound} and above")


def share(section: object, *names: str) -> None:
    """Raise UserError for a value outside of 0 to 1, 1 excluded."""
    for name in names:
        if not 0 <= getattr(section, name) < 1:
            raise UserError(f"{name} is {getattr(section, name)}; allowed 0 to 1, 1 excluded")


def divisible(section: object, name: str, by: str) -> None:
    """Raise UserError for a value that another one does not divide."""
    value, step = getattr(section, name), getattr(section, by)
    if value % step:
        raise UserError(f"{name} is {value}, which {by}, {step}, does not divide")
