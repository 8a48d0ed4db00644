"""Which bytes an encoder's weights are: a folder, a file, or what lies in the cache of the hub.

A hub name is `owner/name`, with `@revision` and `:file` where wanted. The network is touched only
where `download` allows it, and only for what the cache lacks. Tokens are those of huggingface_hub's
environment.
"""

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from crosswatch import artifacts
from crosswatch.errors import FULL, UserError
from crosswatch.records import WeightsConfig

TENSORS = ("*.safetensors",)
PICKLES = ("*model*.bin", "*model*.pt")  # looked at where a folder has no TENSORS
BESIDE = ("*.json", "*.txt")  # configuration and vocabulary

HUB_NAME = re.compile(
    r"(?P<repository>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?(:(?P<file>[\w./-]+))?"
)
ENDINGS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """
    Attributes:
        path: a file, or a folder as `save_pretrained` writes it.
        sha256: of the file; of a folder, over the names and hashes of the files that count.
    """

    path: Path
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _HubName:
    repository: str
    revision: str | None
    file: str | None


class NotFetchedError(UserError):
    """What is named may lie on the hub, and nothing may be fetched from there."""


def find_weights(config: WeightsConfig, *, option: str, expected: str, instead: str) -> Weights:
    """
    Args:
        option: where `config` stands, as features.clip.weights.
        expected: the files that are looked for.
        instead: the settings that need no weights, as they stand after --set.

    Raises:
        UserError: none are named, they are missing, or they are not those of `config.sha256`.
    """
    advice = (
        f"Expected {expected} in a local folder, or a hub name with {option}.download=true; "
        f"without weights: --set {instead}."
    )
    if not config.source:
        raise UserError(f"{option}.source names no weights. {advice}")
    path = _located(config, option=option, advice=advice)
    if path.is_dir() and not _has_weights(path):
        raise UserError(
            f"{option}.source: {path} holds none of {', '.join(TENSORS + PICKLES)}. {advice}"
        )
    found = Weights(path=path, sha256=digest_of_weights(path))
    if config.sha256 and found.sha256 != config.sha256:
        raise UserError(
            f"{option}.sha256 is {config.sha256}; {path} has {found.sha256}. "
            "Name the weights that were meant, or this digest if they are to be used."
        )
    return found


def absolute(config: WeightsConfig) -> WeightsConfig:
    """The same weights for processes that work in other folders."""
    path = Path(config.source).expanduser()
    if not config.source or not path.exists():
        return config
    return dataclasses.replace(config, source=str(path.resolve()))


def digest_of_weights(path: Path) -> str:
    """SHA-256 of a file; of a folder, over its configuration, vocabulary and weights."""
    if path.is_file():
        return _sha256(path)
    return artifacts.digest_of({file.name: _sha256(file) for file in _files_that_count(path)})


def holds_safetensors(folder: Path) -> bool:
    return any(folder.glob(TENSORS[0]))


def _located(config: WeightsConfig, *, option: str, advice: str) -> Path:
    path = Path(config.source).expanduser()
    if path.exists():
        return path
    name = _hub_name(config.source)
    if name is None:
        raise UserError(
            f"{option}.source: there is no {path}, nor is that a hub name (owner/name). {advice}"
        )
    cached = _in_cache(name)
    if cached is not None:
        return cached
    if not config.download:
        raise NotFetchedError(
            f"{option}.source: {config.source} is neither a file or folder here nor complete in "
            f"the hub's cache, and nothing is fetched unless {option}.download=true. {advice}"
        )
    return _fetched(name, source=config.source, option=option, advice=advice)


def _hub_name(source: str) -> _HubName | None:
    """None where it can only be meant as a path."""
    matched = HUB_NAME.fullmatch(source)
    if matched is None or (matched["file"] is None and Path(source).suffix in ENDINGS):
        return None
    return _HubName(
        repository=matched["repository"], revision=matched["revision"], file=matched["file"]
    )


def _in_cache(name: _HubName) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = _snapshot(name, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    return path if path.is_file() or _has_weights(path) else None


def _fetched(name: _HubName, *, source: str, option: str, advice: str) -> Path:
    """
    Raises:
        UserError: the hub cannot be reached in time, or does not hand it out.
    """
    from huggingface_hub import HfApi, constants

    bound_s = constants.HF_HUB_ETAG_TIMEOUT
    try:
        # Asked first, since snapshot_download would wait for ever on a hub that does not answer.
        HfApi().model_info(name.repository, revision=name.revision, timeout=bound_s)
        return _snapshot(name, local_files_only=False)
    except Exception as error:  # among them whatever its transports raise
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{option}.source: {source} could not be fetched from the hub: {reason[:300]}. "
            f"Check the name and the network, or put the files here. {advice}"
        ) from error


def _snapshot(name: _HubName, *, local_files_only: bool) -> Path:
    """Only what is needed: a repository holds the same weights in several formats."""
    import huggingface_hub

    if name.file is not None:
        file = huggingface_hub.hf_hub_download(
            name.repository,
            name.file,
            revision=name.revision,
            local_files_only=local_files_only,
        )
        return Path(file)
    fetch = functools.partial(
        huggingface_hub.snapshot_download,
        name.repository,
        revision=name.revision,
        ignore_patterns=["*/*"],
        local_files_only=local_files_only,
    )
    folder = Path(fetch(allow_patterns=[*TENSORS, *BESIDE]))
    if not holds_safetensors(folder):
        folder = Path(fetch(allow_patterns=[*PICKLES, *BESIDE]))
    return folder


def _has_weights(folder: Path) -> bool:
    return any(
        fnmatch.fnmatch(file.name, pattern)
        for file in _files_that_count(folder)
        for pattern in TENSORS + PICKLES
    )


def _files_that_count(folder: Path) -> Iterator[Path]:
    tensors = TENSORS if holds_safetensors(folder) else PICKLES
    for file in sorted(folder.iterdir()):
        matches = any(fnmatch.fnmatch(file.name, pattern) for pattern in tensors + BESIDE)
        if matches and not file.name.startswith(".") and file.is_file():
            yield file


def _sha256(file: Path) -> str:
    real = file.resolve()
    state = real.stat()
    return _sha256_at(real, state.st_size, state.st_mtime_ns)


@functools.cache
def _sha256_at(file: Path, size: int, mtime_ns: int) -> str:
    """Once a process for a file that was not touched: a gigabyte takes a second."""
    return artifacts.sha256_of(file)
