"""Objects below a prefix in a bucket, by boto3's ordinary chain of settings and credentials."""

import base64
import contextlib
import email.utils
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from crosswatch.data.store import faults
from crosswatch.data.store.multipart import S3Multipart, is_damaged, md5_of
from crosswatch.data.store.objects import (
    Body,
    ChangedError,
    MissingError,
    Multipart,
    ObjectInfo,
    RefusedError,
    Versioned,
)
from crosswatch.data.store.patience import Patience, TransientError
from crosswatch.data.store.place import Bucket
from crosswatch.data.store.settings import TransferConfig


class S3Objects:
    """S3, or a server that speaks its protocol.

    botocore's own retries are off: here a request is tried again until `patience_s` have passed,
    and what a lost answer leaves open is looked up.
    """

    def __init__(self, bucket: Bucket, config: TransferConfig) -> None:
        self._bucket = bucket
        self._patience_s = config.patience_s
        with faults.named(str(bucket), "connecting"):
            self._client = _client(config)

    @property
    def url(self) -> str:
        return str(self._bucket)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        root = self._key("")
        after: dict[str, str] = {}
        while True:
            page = self._ask("list_objects_v2", prefix, Prefix=root + prefix, **after)
            for entry in page.get("Contents", ()):
                if not entry["Key"].endswith("/"):  # a console's marker of a folder
                    key = entry["Key"].removeprefix(root)
                    yield ObjectInfo(key=key, bytes=entry["Size"], tag=entry["ETag"])
            if not page.get("IsTruncated"):
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def get(self, key: str) -> Versioned | None:
        def whole() -> Versioned:
            answer = self._call("get_object", key, Key=self._key(key))
            with faults.named(self._named(key), "get_object"):
                data = answer["Body"].read()
            if is_damaged(answer, md5_of(data)):
                raise TransientError(f"{self._named(key)}: arrived with another MD5 than its ETag")
            return Versioned(data=data, tag=answer["ETag"])

        try:
            return self._patience().run(whole)
        except MissingError:
            return None

    def put(self, key: str, data: bytes) -> None:
        self._write(key, data, {})

    def create(self, key: str, data: bytes) -> bool:
        return self._write(key, data, {"IfNoneMatch": "*"})

    def replace(self, key: str, data: bytes, *, tag: str) -> bool:
        return self._write(key, data, {"IfMatch": tag})

    def delete(self, key: str) -> None:
        with contextlib.suppress(MissingError):
            self._ask("delete_object", key, Key=self._key(key))

    def now(self) -> float:
        """The server's clock, to the second: hosts whose own clocks are wrong agree on it."""
        headers = self._ask("list_objects_v2", "", MaxKeys=1)["ResponseMetadata"]["HTTPHeaders"]
        if "date" not in headers:
            return time.time()
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp()

    def find(self, key: str) -> ObjectInfo | None:
        try:
            head = self._ask("head_object", key, Key=self._key(key))
        except MissingError:
            return None
        return ObjectInfo(key=key, bytes=head["ContentLength"], tag=head["ETag"])

    @contextlib.contextmanager
    def read(
        self, key: str, *, start: int, stop: int, size: int, tag: str | None
    ) -> Iterator[Body]:
        span = f"bytes {start}-{stop - 1}"
        headers = {"Range": span.replace(" ", "="), "Accept-Encoding": "identity"}
        if tag:
            headers["If-Match"] = tag
        found, stream = self._open(key, headers)
        try:
            if found != f"{span}/{size}":
                raise RefusedError(f"{self._named(key)}: is no longer {size} bytes long")
            yield _StreamBody(stream, self._named(key))
        finally:
            stream.close()

    def _open(self, key: str, headers: dict[str, str]) -> tuple[str | None, Any]:
        """The answer's range and its bytes to come.

        Signed by botocore but not read by it, which would take longer than all else about a small
        file. What is refused this way is asked for in the ordinary way, which gets it or says why.
        """
        from botocore.awsrequest import AWSRequest

        names = {"Bucket": self._bucket.name, "Key": self._key(key)}
        with faults.named(self._named(key), "get_object"):
            url = self._client.generate_presigned_url("get_object", Params=names)
            request = AWSRequest("GET", url, headers, stream_output=True).prepare()
            answer = self._client._endpoint.http_session.send(request)
        if answer.status_code in (200, 206):
            return answer.headers.get("Content-Range"), answer.raw
        answer.raw.close()
        if answer.status_code >= 500:
            raise TransientError(f"{self._named(key)}: get_object failed: {answer.status_code}")
        pinned = {"IfMatch": headers["If-Match"]} if "If-Match" in headers else {}
        ordinary = self._call(
            "get_object", key, Key=self._key(key), Range=headers["Range"], **pinned
        )
        return ordinary.get("ContentRange"), ordinary["Body"]

    def send(self, key: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        data = source.read()
        hashed = hashlib.sha256(data)
        if hashed.hexdigest() != sha256:
            raise ChangedError(hashed.hexdigest())
        checksum = base64.b64encode(hashed.digest()).decode()
        answer = self._call(
            "put_object", key, Key=self._key(key), Body=data, ChecksumSHA256=checksum
        )
        if is_damaged(answer, md5_of(data)):
            raise TransientError(f"{self._named(key)}: was damaged on its way to the store")

    @property
    def multipart(self) -> Multipart | None:
        return S3Multipart(self._call, self._key)

    def _write(self, key: str, data: bytes, condition: dict[str, str]) -> bool:
        """Write whole; False if the condition does not hold.

        A lost answer leaves open whether the write took place. It did if the repeated one is
        refused and these very bytes stand there.
        """
        md5 = md5_of(data)
        parameters = {
            "Key": self._key(key),
            "Body": data,
            "ContentMD5": base64.b64encode(bytes.fromhex(md5)).decode(),
            "ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode(),
            **condition,
        }
        is_open = False

        def once() -> bool:
            nonlocal is_open
            try:
                answer = self._call("put_object", key, **parameters)
            except TransientError:
                is_open = True
                raise
            except (
                RefusedError,
                MissingError,
            ):  # a server may answer 404 to If-Match where nothing stands
                standing = self.get(key) if is_open else None
                return standing is not None and standing.data == data
            if is_damaged(answer, md5):
                parameters.pop("IfNoneMatch", None)
                if condition:
                    parameters["IfMatch"] = answer["ETag"]  # ours, so ours to mend
                raise TransientError(f"{self._named(key)}: was damaged on its way to the store")
            return True

        return self._patience().run(once)

    def _ask(self, operation: str, key: str, **parameters: Any) -> dict[str, Any]:
        return self._patience().run(lambda: self._call(operation, key, **parameters))

    def _call(self, operation: str, key: str, **parameters: Any) -> dict[str, Any]:
        with faults.named(self._named(key), operation):
            method: Callable[..., dict[str, Any]] = getattr(self._client, operation)
            return method(Bucket=self._bucket.name, **parameters)

    def _patience(self) -> Patience:
        return Patience(self._patience_s)

    def _key(self, key: str) -> str:
        return f"{self._bucket.prefix}/{key}" if self._bucket.prefix else key

    def _named(self, key: str) -> str:
        return f"{self.url}/{key}" if key else self.url


class _StreamBody:
    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name

    def read(self, count: int) -> bytes:
        with faults.named(self._name, "reading"):
            return bytes(self._stream.read(count))


def _client(config: TransferConfig) -> Any:
    import boto3
    from botocore.config import Config

    settings = Config(
        max_pool_connections=config.concurrency + 2,
        connect_timeout=config.connect_timeout_s,
        read_timeout=config.read_timeout_s,
        retries={"total_max_attempts": 1},
        signature_version="s3v4",
        tcp_keepalive=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False},  # the signed checksum header binds the payload
    )
    return boto3.Session().client("s3", config=settings)
