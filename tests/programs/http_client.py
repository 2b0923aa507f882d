"""Python's own HTTP client: requests one after the other, with a line for each exchange.

Arguments: address, port, then requests as METHOD:TARGET:BYTES, where BYTES is the size of the body, none, or as many
with a `c` behind for a body in chunks. A `close` between them ends the connection.
"""

import http.client
import sys

address, port, *requests = sys.argv[1:]
connection = http.client.HTTPConnection(address, int(port), timeout=60)
for request in requests:
    if request == "close":
        connection.close()
        continue
    method, target, size = request.split(":")
    chunked = size.endswith("c")
    count = int(size.rstrip("c") or 0)
    body = [b"x" * 1000] * (count // 1000) + [b"x" * (count % 1000)] * (count % 1000 > 0)
    if chunked:
        headers = {"Transfer-Encoding": "chunked"}
        connection.request(method, target, body=iter(body), headers=headers, encode_chunked=True)
    else:
        connection.request(method, target, body=b"".join(body) if size else None)
    own = connection.sock.getsockname()[1]
    response = connection.getresponse()
    print(own, method, target, response.status, count, len(response.read()))
connection.close()
