"""A data registry: a clone of a git repository with DVC in it, driven through their commands."""

import contextlib
import dataclasses
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from crosswatch.data.store.objects import Objects
from crosswatch.data.store.place import parse_place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import ResourceError, UserError

Item = TypeVar("Item")

BATCHES = "batches"  # deliveries lie at batches/<id>/: raw.dvc and index.json
LINKS = ("hardlink", "symlink")
FOREIGN_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
BOTO_VARIABLES = {
    "endpointurl": "AWS_ENDPOINT_URL",
    "region": "AWS_DEFAULT_REGION",
    "profile": "AWS_PROFILE",
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "credentialpath": "AWS_SHARED_CREDENTIALS_FILE",
    "configpath": "AWS_CONFIG_FILE",
    "ssl_verify": "AWS_CA_BUNDLE",
}
"""What a DVC remote can set, and how boto3 is told the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registry:
    folder: Path
    remote: str  # as the user would name the place: a folder or s3://bucket/prefix
    remote_settings: Mapping[str, Any]
    cache: Path
    held: tuple[int, ...] = ()  # open files that children keep open, and with them their locks

    @property
    def scratch(self) -> Path:
        """Ignored by git; on the disk of the cache unless that was moved."""
        return self.folder / ".dvc" / "tmp" / "crosswatch"

    @property
    def memory(self) -> Path:
        """DVC's 'site cache': it remembers what it pushed, and believes that even when the remote
        has lost it, so it gets one of its own that is cleared before a push."""
        return self.scratch / "memory"

    def open_remote(self, config: TransferConfig) -> Objects:
        """The DVC remote's objects, with the settings that DVC itself would use."""
        from crosswatch.data.store.opening import open_objects

        wanted = {
            variable: str(value)
            for setting, variable in BOTO_VARIABLES.items()
            if isinstance(value := self.remote_settings.get(setting), str)
        }
        with _environment(wanted):
            return open_objects(parse_place(self.remote), config)

    def git(self, *arguments: str, input_bytes: bytes | None = None) -> bytes:
        """
        Raises:
            UserError: git refused; the line says why.
        """
        ended = self._try_git(*arguments, input_bytes=input_bytes)
        if ended.returncode:
            raise UserError(f"--registry {self.folder}: git: {_git_reason(ended.stderr)}")
        return ended.stdout

    def git_says(self, *arguments: str) -> str | None:
        """What git answers, or None where it refuses."""
        ended = self._try_git(*arguments)
        return None if ended.returncode else ended.stdout.decode(errors="replace").strip()

    def dvc(self, *arguments: str) -> None:
        """
        Raises:
            ResourceError: DVC failed; its whole output is in the log that the line names.
        """
        self.scratch.mkdir(parents=True, exist_ok=True)
        _mend_lock_table(self.folder / ".dvc" / "tmp" / "rwlock")
        log = self.scratch / "dvc.log"
        with log.open("ab") as stream:
            begun = stream.tell()
            ended = subprocess.run(
                [sys.executable, "-m", "dvc", *arguments], cwd=self.folder, check=False,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                env=self._dvc_environment(), pass_fds=self.held,
            )  # fmt: skip
        if ended.returncode:
            with log.open("rb") as written:
                written.seek(begun)
                said = written.read()
            raise ResourceError(
                f"dvc {arguments[0]} failed: {_dvc_reason(said)} (all of it: {log}). Nothing was "
                "tagged; the same command, run again, goes on from there."
            )

    def _try_git(
        self, *arguments: str, input_bytes: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {key: value for key, value in os.environ.items() if key not in FOREIGN_GIT}
        environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}
        try:
            return subprocess.run(
                ["git", *arguments], cwd=self.folder, check=False, capture_output=True,
                env=environment, input=input_bytes or b"", pass_fds=self.held,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise UserError("git is not installed, and a data registry is a git clone.") from error

    def _dvc_environment(self) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if key not in FOREIGN_GIT}
        return environment | {
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.memory),
            "CI": "true",  # else DVC asks its maker's server for news
        }


def open_registry(folder: Path) -> Registry:
    """
    Raises:
        UserError: it is no git clone with DVC and a default remote that can be checked.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise UserError(f"--registry {folder}: is no folder. Name a git clone with DVC in it.")
    bare = Registry(folder=folder, remote="", remote_settings={}, cache=folder)
    if (top := bare.git_says("rev-parse", "--show-toplevel")) is None:
        said = bare._try_git("rev-parse", "--show-toplevel").stderr
        reason = "is not a git repository. git init, or name another."
        if b"not a git repository" not in said:
            reason = _git_reason(said)
        raise UserError(f"--registry {folder}: {reason}")
    if Path(top).resolve() != folder:
        raise UserError(f"--registry {folder}: is inside the git repository {top}; name that.")
    if not (folder / ".dvc").is_dir():
        raise UserError(f"--registry {folder}: has no .dvc. Run dvc init there and commit that.")
    settings = _dvc_settings(folder)
    name = settings["core"].get("remote")
    if name is None or name not in settings["remote"]:
        raise UserError(
            f"--registry {folder}: has no default DVC remote. dvc remote add --default NAME URL"
        )
    kinds = [kind for kind in settings["cache"].get("type") or () if kind in LINKS]
    if kinds:
        raise UserError(
            f"--registry {folder}: DVC's cache.type has {kinds[0]}: links let an edit corrupt the "
            "cache. dvc config cache.type reflink,copy"
        )
    remote = dict(settings["remote"][name])
    for option in ("worktree", "version_aware"):
        if remote.get(option):
            raise UserError(
                f"--registry {folder}: DVC's remote {name!r} is {option}: its objects are not "
                "named after their contents, so they cannot be verified. Use a plain remote."
            )
    return Registry(
        folder=folder,
        remote=str(parse_place(str(remote["url"]))),
        remote_settings=remote,
        cache=Path(settings["cache"].get("dir") or folder / ".dvc" / "cache"),
    )


def _dvc_settings(folder: Path) -> Mapping[str, Any]:
    """DVC's own reading of its files: system, user, repository, local."""
    try:
        from dvc.config import Config, ConfigError  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            "DVC is not installed here, and a data registry needs it. pip install 'dvc[s3]'"
        ) from error
    try:
        settings: Mapping[str, Any] = Config(str(folder / ".dvc"))
    except ConfigError as error:
        raise UserError(f"--registry {folder}: .dvc/config: {str(error)[:300]}") from error
    return settings


def _mend_lock_table(path: Path) -> None:
    """DVC killed while it writes its table of locks leaves it cut off, and from then on refuses all
    work; it also waits for dead processes that nobody has reaped, as in a container. Where no DVC
    has the table in hand and none that it names is alive, it goes."""
    if not path.exists():
        return
    with path.with_name(f"{path.name}.lock").open("ab") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        named = re.findall(rb'"pid": (\d{1,9})\b', path.read_bytes())
        if not any(_is_alive(int(pid)) for pid in named):
            path.unlink()


def _is_alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """boto3 reads its settings from the environment, once, when a client is made."""
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _last_line(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "gave no reason"


def _git_reason(said: bytes) -> str:
    """What git says first of what is fatal; behind that it gives advice."""
    fatal = [line for line in said.splitlines() if line.startswith(b"fatal:")]
    return _last_line(b"\n".join(fatal[:1]) or said)


def _dvc_reason(said: bytes) -> str:
    """The paragraph that DVC marks as the error, without its colours, as one line."""
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", said)
    _, mark, error = plain.partition(b"ERROR:")
    paragraph = (error if mark else plain[-300:]).strip().split(b"\n\n")[0]
    return " ".join(paragraph.decode(errors="replace").split())[:300] or "gave no reason"


def batched(items: Sequence[Item], size: int = 500) -> Iterator[Sequence[Item]]:
    """Some at a time: a command line has a longest length."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
