"""Packing changes where bytes lie, never the bytes; what leads out of a folder is refused."""

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.data.versions import shards
from crosswatch.data.versions.shards import PackConfig, Piece
from crosswatch.errors import BadBatchError

SMALL = PackConfig(pack_below_bytes=600, shard_bytes=1000, threads=2)
PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=["Cc", "Cs"]),
    min_size=1,
    max_size=40,
).filter(lambda part: part not in (".", "..") and len(part.encode()) < 200)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
CONTENTS = st.dictionaries(NAMES, st.integers(0, 2500), min_size=1, max_size=12).map(
    lambda sizes: {name: (name.encode() * 2500)[:size] for name, size in sizes.items()}
)


def is_tree(contents: Mapping[str, bytes]) -> bool:
    """No name is both a file and a folder."""
    return not any(other.startswith(f"{name}/") for name in contents for other in contents)


def write(folder: Path, contents: Mapping[str, bytes]) -> dict[str, str]:
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def delivery(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    folder = tmp_path / "delivery"
    return folder, write(folder, {"a.csv": b"1,2\n", "deep/b.csv": b"", "video.mp4": b"v" * 5000})


@settings(max_examples=60, deadline=None)
@given(CONTENTS.filter(is_tree))
def test_what_is_packed_is_cut_out_again_byte_for_byte(contents: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        listed = write(root / "in", contents)
        objects, pieces = shards.pack(root / "in", listed, root / "raw", config=SMALL)
        assert [piece.path for piece in pieces] == sorted(contents)
        for packed in objects:
            inside = [piece for piece in pieces if piece.object == packed.path]
            shards.cut(root / "raw" / packed.path, inside, root / "out")
            assert (packed.md5, packed.sha256) == shards.hashes_of(root / "raw" / packed.path)
            assert packed.bytes == (root / "raw" / packed.path).stat().st_size
        assert read(root / "out") == contents
        assert {packed.path for packed in objects} == set(read(root / "raw"))
        assert members_by_tarfile(root / "raw") == {
            name: data for name, data in contents.items() if len(data) < SMALL.pack_below_bytes
        }


def members_by_tarfile(raw: Path) -> dict[str, bytes]:
    """What any other tool would find in the shards."""

    def members() -> Iterator[tuple[str, bytes]]:
        for path in (raw / "shards").glob("*.tar"):
            with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
                for member in archive:
                    yield member.name, archive.extractfile(member).read()

    return dict(members())


@settings(max_examples=20, deadline=None)
@given(CONTENTS.filter(is_tree), st.integers(1, 5))
def test_packing_depends_on_names_and_bytes_alone(contents: dict[str, bytes], threads: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        turned = dict(reversed(contents.items()))
        one = shards.pack(root / "a", write(root / "a", contents), root / "x", config=SMALL)
        for path in write(root / "b", turned):
            (root / "b" / path).chmod(0o600)
        config = PackConfig(pack_below_bytes=600, shard_bytes=1000, threads=threads)
        other = shards.pack(root / "b", write(root / "b", turned), root / "y", config=config)
        assert one == other
        assert read(root / "x") == read(root / "y")


def test_shards_are_few_and_no_larger_than_allowed(tmp_path: Path) -> None:
    listed = write(tmp_path / "in", {f"{at:04d}.json": b"x" * 100 for at in range(500)})
    config = PackConfig(pack_below_bytes=1000, shard_bytes=20_000)
    objects, pieces = shards.pack(tmp_path / "in", listed, tmp_path / "raw", config=config)
    assert len(objects) == 3
    assert all(
        sum(piece.bytes for piece in pieces if piece.object == packed.path) <= 20_000
        for packed in objects
    )


@pytest.mark.parametrize(
    "name", ["../out.csv", "/etc/hostname", "deep/../../out.csv", ".", "", "a//b", "a\nb", "\ud800"]
)
def test_a_name_that_leads_out_is_refused(delivery, tmp_path: Path, name: str) -> None:
    folder, listed = delivery
    (tmp_path / "out.csv").write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    with pytest.raises(BadBatchError, match="no file name inside the batch's folder"):
        shards.pack(folder, {**listed, name: digest}, tmp_path / "raw", config=SMALL)
    piece = Piece(path=name, bytes=1, sha256=digest, object="x", offset=0)
    with pytest.raises(BadBatchError, match="no file name inside the batch's folder"):
        shards.cut(folder / "a.csv", [piece], tmp_path / "cut" / "below")


def test_a_link_that_leads_out_is_refused(delivery, tmp_path: Path) -> None:
    folder, listed = delivery
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    with pytest.raises(BadBatchError, match=r"'link': is listed, but no file of the batch"):
        shards.pack(folder, {**listed, "link": digest}, tmp_path / "raw", config=SMALL)


def test_a_changed_and_a_missing_file_are_named(delivery, tmp_path: Path) -> None:
    folder, listed = delivery
    (folder / "deep/b.csv").write_bytes(b"more")
    for act in (
        lambda: shards.verify(folder, listed, threads=2),
        lambda: shards.pack(folder, listed, tmp_path / "raw", config=SMALL),
    ):
        with pytest.raises(BadBatchError, match=r"'deep/b.csv': checksum mismatch"):
            act()
    (folder / "deep/b.csv").unlink()
    with pytest.raises(BadBatchError, match=r"'deep/b.csv': is listed, but no file"):
        shards.verify(folder, listed, threads=2)


def test_an_index_that_lies_writes_nothing_under_a_false_hash(delivery, tmp_path: Path) -> None:
    folder, listed = delivery
    _, pieces = shards.pack(folder, listed, tmp_path / "raw", config=SMALL)
    piece = next(piece for piece in pieces if piece.path == "a.csv")
    for offset in (0, 10**9):
        wrong = Piece(
            path="a.csv", bytes=4, sha256=piece.sha256, object=piece.object, offset=offset
        )
        with pytest.raises(BadBatchError, match=rf"'a.csv': SHA-256 of 4 bytes at {offset}"):
            shards.cut(tmp_path / "raw" / piece.object, [wrong], tmp_path / "out")
