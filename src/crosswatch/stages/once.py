"""A stage that is not run again where what it would make stands already."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswatch import artifacts, stages
from crosswatch.errors import UserError


def run_once(
    name: str,
    *,
    values: Mapping[str, Any],
    reads: Mapping[str, Path],
    out: Path,
    known: Path | None = None,
    delivered: Mapping[str, str] | None = None,
) -> bool:
    """Run a stage unless `out` was made of the same inputs with the same settings and code.

    Args:
        reads: what it reads, by role; artifacts, or the deliveries whose digests `delivered` tells.

    Returns:
        Whether it had to run.
    """
    basis = _basis(name, values, reads, delivered or {})
    note = out.with_name(f".{out.name}.made-from.json")
    if _stands(out, note, basis):
        return False
    note.unlink(missing_ok=True)
    extra = {} if known is None else {"known": known}
    stages.run(name, values=values, paths={**reads, **extra, "out": out})
    made = artifacts.open_artifact(out, verify=False).digest
    artifacts.replace_json(note, {"basis": basis, "digest": made})
    return True


def _basis(
    name: str, values: Mapping[str, Any], reads: Mapping[str, Path], delivered: Mapping[str, str]
) -> str:
    sections = {section: values[section] for section in stages.sections_of(name)}
    inputs = {
        role: artifacts.open_artifact(path, verify=False).digest
        for role, path in reads.items()
        if role != "arrivals"
    }
    inputs |= {f"arrivals/{batch}": digest for batch, digest in delivered.items()}
    return artifacts.digest_of([name, sections, inputs, artifacts.code_version()])


def _stands(out: Path, note: Path, basis: str) -> bool:
    try:
        told = artifacts.read_json(note)
        return bool(
            told["basis"] == basis and told["digest"] == artifacts.open_artifact(out).digest
        )
    except (OSError, ValueError, TypeError, KeyError, UserError):  # nothing, or damaged: again
        return False
