"""A WebSocket server (RFC 6455) that answers each binary frame with the same content, and a line for each handshake.

Arguments: address, port.
"""

import base64
import hashlib
import http.server
import struct
import sys

KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        accept = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + KEY).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accept).decode())
        self.end_headers()
        print(self.client_address[1], self.command, self.path, 101, 0, 0)
        self.close_connection = True
        # Frames of 64 KiB and more, with a mask of zeros.
        while head := self.rfile.read(14):
            content = self.rfile.read(struct.unpack_from(">Q", head, 2)[0])
            self.wfile.write(head[:1] + b"\x7f" + head[2:10] + content)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
