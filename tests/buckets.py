"""A real S3 server for tests, over HTTP on a free port, and a proxy that disturbs it."""

import os
import uuid
from collections.abc import Iterator
from unittest import mock

import pytest

from crosswatch.data.store.place import Bucket
from tests.faulty_proxy import FaultyProxy

ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def bucket(s3_url: str) -> Iterator[Bucket]:
    """A prefix in a new bucket, and the environment in which boto3 finds it."""
    import boto3

    name = f"b-{uuid.uuid4().hex[:12]}"
    with mock.patch.dict(os.environ, {**ACCOUNT, "AWS_ENDPOINT_URL": s3_url}):
        boto3.client("s3").create_bucket(Bucket=name)
        yield Bucket(name, "store")


@pytest.fixture
def proxy(bucket: Bucket, s3_url: str) -> Iterator[FaultyProxy]:
    """The way to the server from here on, also for child processes."""
    with (
        FaultyProxy(s3_url) as between,
        mock.patch.dict(os.environ, {"AWS_ENDPOINT_URL": between.url}),
    ):
        yield between
