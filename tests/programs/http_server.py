"""Python's own HTTP server on files, with a line for each exchange.

Arguments: address, port, protocol version (HTTP/1.0 or HTTP/1.1), folder.
"""

import functools
import http.server
import sys


class Counting:
    """Counts what is written to a file."""

    def __init__(self, file):
        self.file = file
        self.total = 0

    def write(self, data):
        self.total += len(data)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


class Handler(http.server.SimpleHTTPRequestHandler):
    def setup(self):
        super().setup()
        self.wfile = Counting(self.wfile)

    def handle_one_request(self):
        self.status, self.interim, self.head, self.received = None, 0, 0, 0
        before = self.wfile.total
        super().handle_one_request()
        if self.status is not None:
            sent = self.wfile.total - before - self.interim
            line = (self.client_address[1], self.command, self.path, self.status, self.received)
            print(*line, sent - self.head if self.plain else "-", "-", sent if self.plain else "-")

    def send_response_only(self, code, message=None):
        super().send_response_only(code, message)
        self.status, self.plain = code, True

    def handle_expect_100(self):
        before = self.wfile.total
        result = super().handle_expect_100()
        self.interim = self.wfile.total - before
        return result

    def flush_headers(self):
        before = self.wfile.total
        super().flush_headers()
        self.head = self.wfile.total - before

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/until-close":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"x" * 5000)
        elif self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.plain = False
            for size in (1, 1000, 70000):
                self.wfile.write(b"%x;extension=1\r\n%b\r\n" % (size, b"x" * size))
            self.wfile.write(b"0\r\nTrailer: of the response\r\n\r\n")
        else:
            super().do_GET()

    def do_POST(self):
        if self.headers["Transfer-Encoding"] == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.received += len(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        else:
            self.received = len(self.rfile.read(int(self.headers["Content-Length"])))
        answer = b"%d bytes\n" % self.received
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


address, port, Handler.protocol_version, folder = sys.argv[1:]
handler = functools.partial(Handler, directory=folder)
http.server.ThreadingHTTPServer((address, int(port)), handler).serve_forever()
