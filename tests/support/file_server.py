"""A web server of files for tests of downloads: with or without ranges, and one that breaks off."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the server's `files`; see `serving`."""

    def do_GET(self):
        server = self.server
        requested = self.headers.get("Range")
        server.requests.append(requested)
        if self.path not in server.files:
            self.send_error(404)
            return
        data = server.files[self.path]
        start = int(requested.removeprefix("bytes=").removesuffix("-")) if requested else 0
        if requested and server.ranges:
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            start = 0
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + server.breaks_after if server.breaks_after else len(data)
        self.wfile.write(data[start:end])

    def log_message(self, *_):
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[http.server.ThreadingHTTPServer]:
    """A running server.

    Its attributes: `address`, `files` (path → bytes), `requests` (the Range header of each request,
    or None), `ranges` (whether it understands them), `breaks_after` (bytes; None: never).
    """
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files = files
        running.ranges, running.breaks_after, running.requests = True, None, []
        running.address = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()
