"""A proxy for CONNECT, with a line for each exchange of its own.

Arguments: address, port. It wants credentials for the target port 8081 (407) and forbids 8082 (403); after both the
connection goes on. What is not CONNECT it answers itself.
"""

import http.server
import socket
import sys
import threading


def copy(source, sink):
    while data := source.recv(1 << 16):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, *fields):
        body = b"%d from the proxy\n" % status
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.say(status, len(body))

    def say(self, status, length):
        print(self.client_address[1], self.command, self.path, status, 0, length)

    def do_GET(self):
        self.answer(200)

    def do_CONNECT(self):
        address, port = self.path.rsplit(":", 1)
        if port == "8082":
            return self.answer(403)
        if port == "8081" and not self.headers["Proxy-Authorization"]:
            return self.answer(407, ("Proxy-Authenticate", 'Basic realm="test"'))
        with socket.create_connection((address, int(port))) as target:
            self.send_response(200, "Connection established")
            self.end_headers()
            self.say(200, 0)
            there = threading.Thread(target=copy, args=(self.connection, target))
            there.start()
            copy(target, self.connection)
            there.join()
        self.close_connection = True

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
