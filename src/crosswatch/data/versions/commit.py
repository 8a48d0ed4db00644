"""Deliveries into a data registry: packed, given to DVC, committed, pushed, verified, then tagged.

Every step finds out what the steps before it have done, so a command that was cut off is simply
run again; the tag comes last and therefore never names what cannot be fetched.
"""

import concurrent.futures
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.versions import remote as remotes
from crosswatch.data.versions import shards
from crosswatch.data.versions.arrivals import Arrived, find
from crosswatch.data.versions.clone import BATCHES, Registry, batched
from crosswatch.data.versions.lock import alone, writing_git
from crosswatch.data.versions.records import Index, index_text, key_of
from crosswatch.data.versions.resolve import (
    DVC_FILE,
    INDEX_FILE,
    RAW,
    commit_of,
    directory_md5,
    indices_at,
)
from crosswatch.data.versions.shards import PackConfig, Packed, Piece
from crosswatch.errors import BadBatchError, UserError
from crosswatch.progress import Meter, track

ADDED_AT_ONCE = 50  # deliveries whose bytes lie twice on the disk until DVC's cache has them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Committed:
    """What a commit of deliveries has done; the revision at the remote is complete."""

    commit: str
    tag: str | None
    added: tuple[str, ...]
    unchanged: tuple[str, ...]
    not_arrived: tuple[str, ...]
    extra: tuple[str, ...]  # files beside those that SHA256SUMS lists, left alone
    objects: int
    bytes: int


def commit(
    source: Path,
    registry: Registry,
    *,
    tag: str | None,
    message: str | None,
    pack: PackConfig,
    config: TransferConfig,
) -> Committed:
    """Archive the deliveries below `source`, all of them or, where one is broken, none.

    Raises:
        UserError: the registry, the tag or a delivery is not what it has to be; nothing was done.
        ResourceError: git, DVC, the disk or the remote failed; there is no tag.
    """
    with alone(registry) as registry:
        arrived, waiting = find(source)
        _check_identity(registry)
        head = registry.git_says("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        known = indices_at(registry, head) if head else {}
        new = [each for each in arrived if not _is_known(each, known)]
        _check_clean(registry, new)
        if tag is not None:
            _check_tag(registry, tag, head, has_new=bool(new))
        extra = _verify(arrived, pack)
        if new:
            _record(registry, new, pack, message)
        head = commit_of(registry, "HEAD")
        indices = indices_at(registry, head)
        objects, bytes_ = remotes.push(registry, indices, config)
        if tag is not None:
            _tag(registry, tag, head, message)
        return Committed(
            commit=head,
            tag=tag,
            added=tuple(each.id for each in new),
            unchanged=tuple(each.id for each in arrived if each not in new),
            not_arrived=tuple(waiting),
            extra=tuple(extra),
            objects=objects,
            bytes=bytes_,
        )


def _is_known(arrival: Arrived, known: Mapping[str, Index]) -> bool:
    return arrival.id in known and known[arrival.id].sums_sha256 == arrival.digest


def _verify(arrivals: Sequence[Arrived], pack: PackConfig) -> list[str]:
    """Hold every delivery against its hashes, before anything is written.

    Returns the files that stand beside those that the hashes list.
    """
    threads = max(1, pack.threads // len(arrivals))

    def fault(arrival: Arrived) -> str:
        try:
            shards.verify(arrival.path, arrival.listed(), threads=threads)
        except BadBatchError as error:
            return f"{arrival.id}: {error}"
        return ""

    with concurrent.futures.ThreadPoolExecutor(pack.threads) as pool:
        found = track(pool.map(fault, arrivals), what="deliveries", total=len(arrivals))
        faults = [one for one in found if one]
    if faults:
        raise UserError(
            f"{len(faults)} of {len(arrivals)} deliveries are broken, so nothing was committed; "
            f"the first is {faults[0]} Mend it or move it away."
        )
    return [name for arrival in arrivals for name in arrival.extra()]


def _record(
    registry: Registry, new: Sequence[Arrived], pack: PackConfig, message: str | None
) -> None:
    """Pack, give to DVC, commit to git."""
    batches = registry.folder / BATCHES
    batches.mkdir(exist_ok=True)
    (batches / ".gitignore").write_text(f"/*/{RAW}\n", encoding="utf-8")
    paths = [f"{BATCHES}/.gitignore"]
    meter = Meter("packed")
    taken: dict[str, str] = {}
    for some in batched(new, ADDED_AT_ONCE):
        packed = {each.id: _pack(registry, each, pack, taken) for each in some}
        registry.dvc("add", "--no-relink", *(f"{BATCHES}/{name}/{RAW}" for name in packed))
        for name, (objects, files) in packed.items():
            folder = batches / name
            index = _index(registry, name, objects, files)
            (folder / INDEX_FILE).write_text(index_text(index), encoding="utf-8")
            shutil.rmtree(folder / RAW)
            paths += [f"{BATCHES}/{name}/{INDEX_FILE}", f"{BATCHES}/{name}/{DVC_FILE}"]
        meter(len(paths) // 2, len(new))
    listing = "\0".join(paths).encode()
    add = ("add", "-f", "--pathspec-from-file=-", "--pathspec-file-nul")
    said = message or f"Add {_counted(len(new))}: {', '.join(each.id for each in new)}"[:500]
    with writing_git(registry):
        registry.git(*add, input_bytes=listing)
        # A gc in the background would hold the registry's lock.
        registry.git("-c", "gc.auto=0", "commit", "-q", "-m", said)


def _pack(
    registry: Registry, arrival: Arrived, pack: PackConfig, taken: dict[str, str]
) -> tuple[tuple[Packed, ...], tuple[Piece, ...]]:
    """A delivery's objects as batches/ID/raw, where DVC takes them up."""
    staged = registry.scratch / "packing"
    shutil.rmtree(staged, ignore_errors=True)
    done = shards.pack(arrival.path, arrival.listed(), staged, config=pack)
    raw = registry.folder / BATCHES / arrival.id / RAW
    shutil.rmtree(raw, ignore_errors=True)
    raw.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(raw)
    for packed in done[0]:
        cached = _cached_sha256(registry, packed.md5) or packed.sha256
        if len({packed.sha256, cached, taken.setdefault(packed.md5, packed.sha256)}) > 1:
            raise UserError(
                f"{arrival.id}: {packed.path[:200]!r}: has the MD5 of other contents "
                f"({packed.md5}), which was made on purpose. DVC cannot hold both."
            )
    return done


def _cached_sha256(registry: Registry, md5: str) -> str | None:
    """What DVC's cache has under a name. DVC would keep it though it was damaged since, so that
    is removed."""
    path = registry.cache / key_of(md5)
    if not path.is_file():
        return None
    found, sha256 = shards.hashes_of(path)
    if found == md5:
        return sha256
    path.unlink()
    return None


def _index(
    registry: Registry, batch_id: str, objects: tuple[Packed, ...], files: tuple[Piece, ...]
) -> Index:
    """The index of what DVC took up, which has to be what was packed.

    Raises:
        UserError: DVC left something out (.dvcignore) or holds other contents.
    """
    path = registry.folder / BATCHES / batch_id / DVC_FILE
    md5 = directory_md5(path.read_bytes())
    listing = registry.cache / f"{key_of(md5 or '')}.dir"
    taken = {}
    if md5 is not None and listing.is_file():
        taken = {each["relpath"]: each["md5"] for each in json.loads(listing.read_bytes())}
    wanted = {packed.path: packed.md5 for packed in objects}
    if md5 is None or taken != wanted:
        odd = sorted(dict(taken.items() ^ wanted.items()))
        raise UserError(
            f"{path}: DVC did not take up what was packed: {len(odd)} of {len(wanted)} objects, "
            f"first {str(odd[:1])[1:-1][:100]}. Look for them in .dvcignore."
        )
    return Index(
        id=batch_id,
        directory_md5=md5,
        directory_bytes=listing.stat().st_size,
        objects=objects,
        files=files,
    )


def _check_identity(registry: Registry) -> None:
    """An archive says who filled it; an address that git would make up does not."""
    who = registry.git_says("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    if who is None:
        raise UserError(
            f"--registry {registry.folder}: git does not know who you are. "
            "git config user.name NAME and git config user.email ADDRESS"
        )


def _check_clean(registry: Registry, new: Sequence[Arrived]) -> None:
    """Nothing uncommitted but what an interrupted commit of these deliveries has left."""
    ours = {f"{BATCHES}/{each.id}/{name}" for each in new for name in (DVC_FILE, INDEX_FILE)}
    ours.add(f"{BATCHES}/.gitignore")
    said = registry.git("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
    paths = [entry[3:] for entry in said.decode(errors="replace").split("\0") if entry]
    staged = f"/{RAW}/"  # of a first commit that was cut off before it wrote .gitignore
    foreign = [path for path in paths if path not in ours and staged not in path]
    if foreign:
        raise UserError(
            f"--registry {registry.folder}: {len(foreign)} files are not committed, first "
            f"{foreign[0][:200]!r}. Commit or remove them; if an interrupted data commit of other "
            "deliveries left them, run that again first."
        )


def _check_tag(registry: Registry, tag: str, head: str | None, *, has_new: bool) -> None:
    """A tag is new, or it names this very revision already and there is nothing to add."""
    if tag.startswith("-") or registry.git_says("check-ref-format", f"refs/tags/{tag}") is None:
        raise UserError(f"--tag {tag[:100]!r}: is no name that git allows for a tag")
    named = registry.git_says("rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}")
    if named is not None and (has_new or named != head):
        raise UserError(
            f"--tag {tag}: exists already and names {named[:12]}. Choose another: a tag never "
            "moves."
        )


def _tag(registry: Registry, tag: str, head: str, message: str | None) -> None:
    if registry.git_says("rev-parse", "--verify", "--quiet", f"refs/tags/{tag}") is None:
        with writing_git(registry):
            registry.git("tag", "-a", "-m", message or f"Data {tag}", "--", tag, head)


def _counted(deliveries: int) -> str:
    return f"{deliveries} {'delivery' if deliveries == 1 else 'deliveries'}"
