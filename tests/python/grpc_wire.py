"""A gRPC client on a bare socket, which does what no driver does: it stops in the middle, breaks off, sends what is no
Arrow, polls, and reads while it sends.

Of HTTP/2 there is as much as that takes. Tests decide what goes out when, and wait for frames instead of for time.
"""

import select
import socket
import ssl
import struct
import urllib.parse

import pyarrow

import flight_sql

SERVICE = "/arrow.flight.protocol.FlightService/"
WAIT_SECONDS_MAX = 60

# Statuses of gRPC.
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED = 0, 3, 4, 5, 6, 8
FAILED_PRECONDITION, ABORTED, UNIMPLEMENTED = 9, 10, 12

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_WINDOW, _WINDOW_MAX, _FRAME_BYTES = 65_535, (1 << 31) - 1, 16_384

# Of HPACK's code, which is canonical, the characters of each length; longer ones are in no header of ours.
_CHARACTERS = {
    5: "012aceiost",
    6: " %-./3456789=A_bdfghlmnpru",
    7: ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: "&*,;XZ",
    10: '!"()?',
    11: "'+|",
    12: "#>",
    13: "\0$@[]~",
    14: "^}",
    15: "<`{",
}


def _huffman_codes():
    codes, code, last = {}, 0, 0
    for length, characters in _CHARACTERS.items():
        code <<= length - last
        for character in characters:
            codes[length, code] = character
            code += 1
        last = length
    return codes


_CODES = _huffman_codes()


class Refused(Exception):
    """What the server answered with instead of success."""

    def __init__(self, code, sqlstate, message):
        super().__init__(f"status {code}: {message}")
        self.code, self.sqlstate, self.message = code, sqlstate, message


class Connection:
    """An HTTP/2 connection. All is done by whoever calls: nothing is sent or read behind a test's back."""

    def __init__(self, server, tls=None):
        """`tls`: the context of a connection that is encrypted."""
        self._socket = socket.create_connection((server.host, server.port), timeout=WAIT_SECONDS_MAX)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._received = b""
        self.calls = {}
        self.window, self.call_window, self.is_greeted = _WINDOW, _WINDOW, False
        # No table of headers, and as much room for answers as there can be.
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send_frame(_SETTINGS, 0, 0, struct.pack(">HIHI", 1, 0, 4, _WINDOW_MAX))
        self.send_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW_MAX - _WINDOW))
        while not self.is_greeted:
            self.read_frame()

    def call(self, method, headers=()):
        """Begins a call; `headers` are pairs beside those of gRPC."""
        call = Call(self, 2 * len(self.calls) + 1)
        self.calls[call.number] = call
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": SERVICE + method,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
            **{_text(name): _text(value) for name, value in headers},
        }
        block = b"".join(b"\0" + _length(name) + _length(value) for name, value in headers.items())
        self.send_frame(_HEADERS, _END_HEADERS, call.number, block)
        return call

    def ask(self, method, message, headers=()):
        """A call with one message each way."""
        call = self.call(method, headers)
        call.send(message)
        call.end()
        (answer,) = call.answers()
        return answer

    def send_frame(self, kind, flags, stream, payload):
        self._socket.sendall(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def set_window(self, size):
        """How many bytes the server may send on each call from now on before they are read."""
        self.send_frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, size))

    def has_news(self):
        # What a record of TLS has left over is nothing that the system tells of.
        is_left = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
        return len(self._received) > 0 or is_left or bool(select.select([self._socket], [], [], 0)[0])

    def read_frame(self):
        head = self._read(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        payload = self._read(int.from_bytes(head[:3], "big"))
        if kind == _SETTINGS and not flags & _ACK:
            self._set(payload)
            self.send_frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self.send_frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if stream == 0:
                self.window += more
            else:
                self.calls[stream].window += more
        elif kind == _GOAWAY:
            raise ConnectionResetError(f"the server ends the connection: {payload[4:]}")
        elif kind in (_DATA, _HEADERS, _RST_STREAM):
            assert not flags & _PADDED, "nobody pads"
            self.calls[stream].receive(kind, flags, payload)

    def _set(self, settings):
        self.is_greeted = True
        for position in range(0, len(settings), 6):
            name, value = struct.unpack_from(">HI", settings, position)
            if name == 4:
                for call in self.calls.values():
                    call.window += value - self.call_window
                self.call_window = value

    def _read(self, count):
        while len(self._received) < count:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the server has closed the connection")
            self._received += data
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def vanish(self):
        """Ends without a word, as a process does that is killed."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Call:
    """A call under way."""

    def __init__(self, connection, number):
        self.connection, self.number = connection, number
        self.window = connection.call_window
        self.headers, self.is_over, self.reset = {}, False, None
        self._body = b""

    def send(self, message):
        """Sends a message; the bytes of it that went out before the server had answered for good."""
        return self.send_bytes(struct.pack(">BI", 0, len(message)) + message)

    def send_bytes(self, data):
        """Sends a piece of messages as the server has room for it, until it has answered; how many bytes went out."""
        view, sent = memoryview(data), 0
        while sent < len(view):
            while not self.is_over and (self.room() == 0 or self.connection.has_news()):
                self.connection.read_frame()
            if self.is_over:
                break
            piece = view[sent : sent + min(self.room(), _FRAME_BYTES)]
            self.connection.send_frame(_DATA, 0, self.number, bytes(piece))
            self.window -= len(piece)
            self.connection.window -= len(piece)
            sent += len(piece)
        return sent

    def room(self):
        return max(0, min(self.window, self.connection.window))

    def end(self):
        """Says that no more comes."""
        if not self.is_over:
            self.connection.send_frame(_DATA, _END_STREAM, self.number, b"")

    def cancel(self):
        self.connection.send_frame(_RST_STREAM, 0, self.number, struct.pack(">I", 8))

    def receive(self, kind, flags, payload):
        if kind == _DATA:
            self._body += payload
        elif kind == _HEADERS:
            assert flags & _END_HEADERS, "the headers fit into a frame"
            self.headers.update(_read_headers(payload))
        else:
            (self.reset,) = struct.unpack(">I", payload)
        self.is_over = self.is_over or kind == _RST_STREAM or bool(flags & _END_STREAM)

    def next_answer(self):
        """The next message of the answer; None at its end."""
        while True:
            if len(self._body) >= 5:
                (length,) = struct.unpack_from(">I", self._body, 1)
                if len(self._body) >= 5 + length:
                    answer, self._body = self._body[5 : 5 + length], self._body[5 + length :]
                    return answer
            if self.is_over:
                return None
            self.connection.read_frame()

    def answers(self):
        """All messages of the answer, or its status as `Refused`."""
        answers = []
        while (answer := self.next_answer()) is not None:
            answers.append(answer)
        if "grpc-status" not in self.headers:
            raise ConnectionResetError(f"no status: the server ended the stream with {self.reset}")
        code = int(self.headers["grpc-status"])
        if code != OK:
            message = urllib.parse.unquote(self.headers.get("grpc-message", ""))
            raise Refused(code, self.headers.get("x-sqlstate"), message)
        return answers


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def _length(text):
    """A string as HPACK has it, not compressed."""
    data = text.encode()
    assert len(data) < 127 + 128, "lengths of one or two bytes"
    return (bytes([len(data)]) if len(data) < 127 else bytes([127, len(data) - 127])) + data


def _read_headers(block):
    """The headers whose names are spelled out; those of HTTP itself come as numbers, which nobody asks for."""
    headers, position = {}, 0

    def number(bits):
        nonlocal position
        value = block[position] & (1 << bits) - 1
        position += 1
        if value == (1 << bits) - 1:
            shift = 0
            while True:
                byte = block[position]
                position += 1
                value += (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
        return value

    def text():
        nonlocal position
        is_compressed = block[position] & 0x80
        length = number(7)
        data = block[position : position + length]
        position += length
        return _decompressed(data) if is_compressed else data.decode()

    while position < len(block):
        first = block[position]
        if first & 0x80:
            number(7)
        elif first & 0xE0 == 0x20:
            number(5)
        else:
            index = number(6 if first & 0x40 else 4)
            name = f"#{index}" if index else text()
            headers[name] = text()
    return headers


def _decompressed(data):
    out, code, length = [], 0, 0
    for byte in data:
        for bit in range(7, -1, -1):
            code, length = code << 1 | byte >> bit & 1, length + 1
            if (length, code) in _CODES:
                out.append(_CODES[length, code])
                code, length = 0, 0
    assert length < 8 and code == (1 << length) - 1, "only the padding is left"
    return "".join(out)


# Messages of Flight.


def descriptor(name, fields):
    """A FlightDescriptor that is a command of Flight SQL."""
    return flight_sql.message({1: 2, 2: flight_sql.packed(name, fields)})


def flight_data(ipc=(b"", b""), descriptor=None):
    """A FlightData of an Arrow message's metadata and body."""
    header, body = ipc
    fields = {1: descriptor} if descriptor is not None else {}
    return flight_sql.message({**fields, **({2: header} if header else {}), **({1000: body} if body else {})})


def ipc(serialized):
    """Metadata and body of what pyarrow's `serialize` gives."""
    message = pyarrow.ipc.read_message(serialized)
    return message.metadata.to_pybytes(), message.body.to_pybytes() if message.body is not None else b""
