"""What S3 and the way to it can answer, as errors of ours: one line each, sorted by what helps."""

import contextlib
from collections.abc import Iterator
from typing import Any

from crosswatch.data.store.objects import MissingError, RefusedError
from crosswatch.data.store.patience import TransientError
from crosswatch.errors import ResourceError, UserError

MISSING = ("NoSuchKey", "NoSuchUpload", "NotFound", "404")
REFUSED = ("PreconditionFailed", "InvalidRange", "412", "416")
PASSING = (
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "InvalidPart",  # a list of parts that was damaged on its way, as below
    "MalformedXML",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
)
ADVICE = {
    "NoSuchBucket": "Create the bucket or correct its name.",
    "AccessDenied": "Ask for the right to do this, or use other credentials.",
    "403": "The credentials are wrong or lack the right to do this.",
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY.",
    "ExpiredToken": "The credentials have run out: renew them.",
    "RequestTimeTooSkewed": "Set this machine's clock.",
    "PermanentRedirect": "The bucket is in another region: set AWS_REGION.",
    "AuthorizationHeaderMalformed": "The bucket may be in another region: set AWS_REGION.",
    "NotImplemented": "This server lacks what a store needs; use another one or a folder.",
    "InvalidObjectState": "The object is in an archive: restore it first.",
    "EntityTooLarge": "Raise store.part_mib.",
}


@contextlib.contextmanager
def named(name: str, operation: str) -> Iterator[None]:
    """Translate whatever one request to S3 raises.

    Raises:
        MissingError, RefusedError: the object is not there, or not the one that was meant.
        TransientError: it may go well the next time.
        UserError: it will not until somebody mends it.
    """
    from botocore import exceptions, parsers
    from urllib3.exceptions import HTTPError

    def line(error: object) -> str:
        return f"{name[:300]}: {operation} failed: {' '.join(str(error).split())[:300]}"

    try:
        yield
    except exceptions.ClientError as error:
        raise _answered(error.response, line(_words(error.response))) from error
    except exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            text = "the server's certificate is not trusted. Name its authority in AWS_CA_BUNDLE."
            raise UserError(f"{name[:300]}: {text}") from error
        raise TransientError(line(error)) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise UserError(
            f"{name[:300]}: no complete credentials were found. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        ) from error
    except (
        exceptions.HTTPClientError,
        exceptions.ConnectionError,
        exceptions.IncompleteReadError,
        parsers.ResponseParserError,
        HTTPError,
        OSError,
    ) as error:
        raise TransientError(line(error)) from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise UserError(f"{line(error)}. Check the AWS_ settings.") from error


def _answered(response: dict[str, Any], line: str) -> Exception:
    code = response.get("Error", {}).get("Code", "")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in MISSING:
        return MissingError(line)
    if code in REFUSED:
        return RefusedError(line)
    if code in PASSING or (status >= 500 and code != "NotImplemented") or status == 429:
        return TransientError(line)
    if code in ADVICE or 400 <= status < 500:
        return UserError(f"{line}. {ADVICE.get(code, 'The server does not take this request.')}")
    return ResourceError(line)


def _words(response: dict[str, Any]) -> str:
    error = response.get("Error", {})
    return f"{error.get('Code', '')}: {error.get('Message', '')}".rstrip(". ")
