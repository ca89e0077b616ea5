"""A local server of files that answers as S3 does: sizes, ranges and lists. Signatures are not looked at."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_TIME = "2026-01-01T00:00:00.000Z"
_HTTP_TIME = "Thu, 01 Jan 2026 00:00:00 GMT"


@contextmanager
def s3_server(objects: Mapping[str, bytes]) -> Iterator[str]:
    """Serve objects, by `bucket/key`, and yield the query that an address needs: `s3://bucket/key?QUERY`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            name, query = unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)
            if "list-type" in query or ("/" not in name and name):
                self._answer(200, _listing(objects, name, query), "application/xml")
                return
            data = objects.get(name)
            if data is None:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")
                return
            asked = self.headers.get("Range")
            if asked is None:
                self._answer(200, data)
                return
            first, _, last = asked.removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1 if last else None]
            span = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            self._answer(206, part, headers={"Content-Range": span})

        def _answer(
            self,
            status: int,
            data: bytes,
            kind: str = "application/octet-stream",
            headers: Mapping[str, str] | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Last-Modified": _HTTP_TIME, **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", '"0"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        port = server.server_address[1]
        yield f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1&allow_bucket_creation=false"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listing(objects: Mapping[str, bytes], bucket: str, query: Mapping[str, list[str]]) -> bytes:
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    files, folders = [], set()
    for name in sorted(objects):
        if not name.startswith(f"{bucket}/{prefix}"):
            continue
        key = name.removeprefix(f"{bucket}/")
        rest = key.removeprefix(prefix)
        if delimiter and delimiter in rest:
            folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
        else:
            files.append(key)
    entries = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>{_TIME}</LastModified>"
        f"<Size>{len(objects[f'{bucket}/{key}'])}</Size><ETag>0</ETag></Contents>"
        for key in files
    )
    entries += "".join(
        f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)
    )
    count = len(files) + len(folders)
    return (
        f'<?xml version="1.0"?><ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>'
        f"<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{entries}"
        "</ListBucketResult>"
    ).encode()
