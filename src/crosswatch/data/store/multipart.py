"""A large object's parts in S3, which outlive the process that sends them."""

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any

from crosswatch.data.store.objects import Part
from crosswatch.data.store.patience import TransientError

MD5_PATTERN = re.compile(r"[0-9a-f]{32}")


class S3Multipart:
    def __init__(self, call: Callable[..., dict[str, Any]], named: Callable[[str], str]) -> None:
        self._call = call
        self._key = named
        self._with_md5_tags: set[str] = set()  # uploads begun here, without encryption

    def pending(self, key: str) -> list[str]:
        page = self._call("list_multipart_uploads", key, Prefix=self._key(key))
        uploads = [
            entry
            for entry in page.get("Uploads", ())
            if entry["Key"] == self._key(key)
            and entry.get("ChecksumAlgorithm") in (None, "CRC64NVME")  # S3's own; ours name none
        ]
        return [
            entry["UploadId"] for entry in sorted(uploads, key=lambda entry: entry["Initiated"])
        ]

    def begin(self, key: str) -> str:
        answer = self._call("create_multipart_upload", key, Key=self._key(key))
        if not is_encrypted(answer):
            self._with_md5_tags.add(answer["UploadId"])
        return str(answer["UploadId"])

    def parts(self, key: str, upload: str) -> list[Part]:
        found: list[Part] = []
        after: dict[str, int] = {}
        while True:
            page = self._call("list_parts", key, Key=self._key(key), UploadId=upload, **after)
            found += [
                Part(
                    number=entry["PartNumber"],
                    bytes=entry["Size"],
                    tag=entry["ETag"],
                )
                for entry in page.get("Parts", ())
            ]
            if not page.get("IsTruncated"):
                return found
            after = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def send_part(self, key: str, upload: str, number: int, data: bytes) -> Part:
        """Its MD5 is held against the ETag; it goes with the part where that may say nothing.

        It is the second hash of every byte, after the file's SHA-256, and no server adds a third.
        """
        md5 = md5_of(data)
        checked = {"ContentMD5": base64.b64encode(bytes.fromhex(md5)).decode()}
        if upload in self._with_md5_tags:
            checked = {}
        answer = self._call(
            "upload_part",
            key,
            Key=self._key(key),
            UploadId=upload,
            PartNumber=number,
            Body=data,
            **checked,
        )
        if is_damaged(answer, md5):
            raise TransientError(
                f"part {number} of {key[:300]}: was damaged on its way to the store"
            )
        return Part(number=number, bytes=len(data), tag=answer["ETag"])

    def complete(self, key: str, upload: str, parts: list[Part]) -> None:
        listed = [
            {"PartNumber": part.number, "ETag": part.tag}
            for part in sorted(parts, key=lambda part: part.number)
        ]
        self._call(
            "complete_multipart_upload",
            key,
            Key=self._key(key),
            UploadId=upload,
            MultipartUpload={"Parts": listed},
        )

    def abort(self, key: str, upload: str) -> None:
        self._call("abort_multipart_upload", key, Key=self._key(key), UploadId=upload)


def is_damaged(answer: dict[str, Any], md5: str) -> bool:
    """Whether the ETag is the MD5 of other bytes; encrypted and composed objects have none."""
    tag = str(answer.get("ETag", "")).strip('"')
    return bool(MD5_PATTERN.fullmatch(tag)) and not is_encrypted(answer) and tag != md5


def is_encrypted(answer: dict[str, Any]) -> bool:
    """Under a key of the user's: then an ETag looks like an MD5 and is none."""
    kind = str(answer.get("ServerSideEncryption", ""))
    return kind.startswith("aws:kms") or bool(answer.get("SSECustomerAlgorithm"))


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
