"""A bucket of object storage as a `Place`: `results_dir=s3://BUCKET/RUN`. Imports no torch, s3fs where it is needed.

What a folder does by links and renames an object store does by conditions on a put: `If-None-Match: *` creates a name
that is not there, `If-Match: ETag` changes one that still is what it was. A put is whole or not there, and listings
show it at once. Credentials, region and endpoint are those of the AWS tools (`AWS_ENDPOINT_URL` for another server).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from harness.errors import InputError
from harness.store.place import Place, Seen

if TYPE_CHECKING:
    import pyarrow as pa

ADDRESS = re.compile(r"s3:/{1,2}([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[^/]+)*)/?")
AT_ONCE = 8 * 2**20  # bytes of a file that are asked for in one request; a larger one is read in pieces
UNMET = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
PROBE = ".clock"


class Bucket(Place):
    """Objects under a prefix of a bucket. Making one touches nothing; InputError where the address cannot be."""

    lockable = False

    def __init__(self, address: str) -> None:
        match = ADDRESS.fullmatch(address)
        if match is None:
            raise InputError(
                f"results_dir={address} is not valid: give a bucket and a name in it, as in s3://bucket/run"
            )
        if find_spec("s3fs") is None:
            raise InputError(f"results_dir={address} needs the package s3fs: uv sync --extra s3, or pip install s3fs")
        self.bucket, self.prefix = match[1], match[2].strip("/")
        self.known: dict[str, tuple[bytes, str]] = {}  # small files that we wrote: their content and ETag

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @cached_property
    def fs(self) -> Any:
        import s3fs  # pyright: ignore[reportMissingImports]  # an extra

        return s3fs.S3FileSystem(use_listings_cache=False)

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _ask(self, method: str, name: str, **more: Any) -> dict[str, Any]:
        """One request about one object; FileNotFoundError, _Unmet or another OSError."""
        try:
            return self.fs.call_s3(method, Bucket=self.bucket, Key=self._key(name), **more)
        except OSError as error:
            raise _translated(error) from error
        except Exception as error:  # of botocore: no credentials, no server
            raise OSError(5, str(error)) from error

    # ---- reading

    def names(self, prefix: str) -> list[str]:
        return self._listed(prefix, Delimiter="/")

    def below(self, folder: str) -> list[str]:
        return self._listed(folder)

    def _listed(self, prefix: str, **how: str) -> list[str]:
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            try:
                page = self.fs.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=self._key(prefix), **how, **more)
            except OSError as error:
                raise _translated(error) from error
            except Exception as error:
                raise OSError(5, str(error)) from error
            found += [one["Key"][len(self._key("")) :] for one in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        return sorted(name for name in found if name.rpartition("/")[2][:1] not in ("", "."))

    def look(self, name: str) -> Seen:
        found = self._ask("head_object", name)
        return Seen(found["ContentLength"], found["LastModified"].timestamp(), found["ETag"])

    def open(self, name: str) -> pa.NativeFile:
        import pyarrow as pa

        content, size = self._get(name, Range=f"bytes=0-{AT_ONCE - 1}")
        if size <= AT_ONCE:
            return pa.BufferReader(content)
        return pa.PythonFile(self.fs.open(f"{self.bucket}/{self._key(name)}", "rb"), mode="r")

    def read(self, name: str) -> bytes:
        return self._get(name)[0]

    def _get(self, name: str, **more: Any) -> tuple[bytes, int]:
        """What was asked for of a file, and the size of all of it."""
        from fsspec.asyn import sync

        found = self._ask("get_object", name, **more)
        content: bytes = sync(self.fs.loop, found["Body"].read)  # pyright: ignore[reportAssignmentType]
        return content, int(found.get("ContentRange", f"/{len(content)}").rpartition("/")[2])

    def now(self) -> float:
        """By the answer to a put, so that one who may not write is told so."""
        answer = self._ask("put_object", PROBE, Body=b"")
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    # ---- writing

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        sink = BytesIO()
        yield sink
        try:
            self.fs.pipe_file(f"{self.bucket}/{self._key(name)}", sink.getvalue())
        except OSError as error:
            raise _translated(error) from error

    def create(self, name: str, content: bytes) -> None:
        mine = uuid.uuid4().hex
        try:
            answer = self._ask("put_object", name, Body=content, IfNoneMatch="*", Metadata={"by": mine})
        except _Unmet as error:  # by us perhaps: the answer was lost on its way, and s3fs asked again
            found = self._ask("head_object", name)
            if found.get("Metadata", {}).get("by") != mine:
                raise FileExistsError(17, "File exists", name) from error
            answer = found
        self.known[name] = content, answer["ETag"]

    def renew(self, name: str, content: bytes) -> bool:
        try:
            answer = self._ask("put_object", name, Body=content, IfMatch=self._tag(name, content))
        except (FileNotFoundError, _Unmet):
            self.known.pop(name, None)
            return False
        self.known[name] = content, answer["ETag"]
        return True

    def delete(self, name: str, content: bytes | None = None) -> None:
        try:
            condition = {} if content is None else {"IfMatch": self._tag(name, content)}
            self._ask("delete_object", name, **condition)
        except (FileNotFoundError, _Unmet):
            pass
        self.known.pop(name, None)

    def _tag(self, name: str, content: bytes) -> str:
        """The ETag of a file that holds `content`; _Unmet where it holds something else."""
        ours = self.known.get(name)
        if ours is None or ours[0] != content:
            tag = self._ask("head_object", name)["ETag"]
            if self.read(name) != content:
                raise _Unmet(22, "it holds something else", name)
            return tag
        return ours[1]

    @contextmanager
    def locked(self, alone: bool = False) -> Iterator[None]:
        if alone:
            raise OSError(95, "object storage has no locks, so records there are not compacted")
        yield


class _Unmet(OSError):
    """A request's condition does not hold."""


def _translated(error: OSError) -> OSError:
    """s3fs's error with its reason as `strerror`; a condition that does not hold is _Unmet."""
    answer = getattr(error.__cause__, "response", None) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    if isinstance(error, FileExistsError) or code in UNMET:
        return _Unmet(error.errno or 22, str(error))
    if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
        return FileNotFoundError(2, str(error))
    return type(error)(error.errno or 5, f"{code or type(error).__name__}: {error.strerror or error}")
