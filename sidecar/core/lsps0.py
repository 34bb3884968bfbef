"""LSPS0 (bLIP 50): JSON-RPC 2.0 in LND's custom messages, read and written as the LSP does.

A message is read into a Request, or refused with an RpcError that says how it is answered. All that
is echoed is bounded: LND hangs up on a peer to whom a message is longer than 65,533 bytes.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.core.errors import LspsRefused

LSPS_MESSAGE = 37913
"""The type of all LSPS messages."""

MAX_PAYLOAD = 65_533
"""Bytes of a message behind its type (BOLT 8)."""

MAX_ID = 255
"""Bytes of a request's id as it is written, without the quotes. bLIP 50 sets no limit: a UUID has 36."""

MAX_DEPTH = 32
"""Objects and arrays in one another. No LSPS has more than a few."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

# Of the names that an error lists; what is left of a message is plenty for the rest of it.
_MAX_ECHO = 48_000

_ESCAPE = re.compile(r"\\.", re.DOTALL)
_STRING = re.compile(r'"[^"]*"')
_BACKSLASH = re.compile(r'\\(["\\]?)')


class RpcError(LspsRefused):
    """A request that is answered with an error; `request_id` is None where it could not be read.

    Its code, message and data are sent to the peer: none of them may hold anything of ours.
    """

    def __init__(
        self,
        code: int,
        message: str,
        data: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.data = data
        self.request_id = request_id


@dataclass(frozen=True, slots=True)
class Request:
    r"""A request: `params` by name, and the `sizes` of those that are strings.

    A size is in bytes of UTF-8 as the string is written, "with `\` escape codes counting as multiple
    bytes [...] but not counting the `"` double quote delimiters" (bLIP 55).
    """

    id: str
    method: str
    params: Mapping[str, object]
    sizes: Mapping[str, int]


def written_size(text: str) -> int:
    """The bytes of a string in the JSON that we write, without the quotes."""
    return len(_dumps(text).encode("utf-8", "surrogatepass")) - 2


def read_request(payload: bytes) -> Request:
    """A client's message. Raises RpcError for what is no request, LspsRefused for what is an answer."""
    members, as_written = _read_object(payload)
    # A client that could not read our answer may say so: two sides that answer each other's complaints
    # would never stop.
    if "method" not in members and ("error" in members or "result" in members):
        raise LspsRefused("an answer, where we have asked nothing")
    spelled = _by_name(members, as_written)
    # "If the LSP, the received payload MUST parse to a JSON object that is a JSON-RPC 2.0 request."
    # "Clients MUST use a high-entropy `id` string": what has another id can't be answered by it.
    request_id, method = members.get("id"), members.get("method")
    if members.get("jsonrpc") != "2.0" or not isinstance(request_id, str) or not isinstance(method, str):
        raise _bad_format("no JSON-RPC 2.0 request with a string as its id")
    if _size(spelled["id"]) > MAX_ID:
        raise RpcError(INVALID_REQUEST, f"an id of more than {MAX_ID} bytes")
    params = members.get("params", {})
    if isinstance(params, list):
        # It is JSON-RPC 2.0, but clients "MUST NOT use by-position parameter structures".
        raise RpcError(INVALID_REQUEST, "params by position", request_id=request_id)
    if not isinstance(params, dict):
        raise _bad_format("params that are no object")
    spellings = _by_name(params, spelled.get("params", {}))
    sizes = {name: _size(spellings[name]) for name, value in params.items() if isinstance(value, str)}
    return Request(request_id, method, params, sizes)


def method_not_found() -> RpcError:
    """The answer to a method that we do not have."""
    return RpcError(METHOD_NOT_FOUND, "Method not found")


def invalid_params(message: str, unrecognized: Iterable[str] = ()) -> RpcError:
    """The answer to params that the method does not take, or not so.

    "This `data` object MUST contain at least the field `unrecognized`, a JSON array of strings". Names
    beyond 48,000 bytes in all are left out, so that the answer fits.
    """
    names, room = [], _MAX_ECHO
    for name in unrecognized:
        # As written, with its quotes and comma.
        room -= written_size(name) + 3
        if room < 0:
            break
        names.append(name)
    return RpcError(INVALID_PARAMS, message, {"unrecognized": names})


def internal_error() -> RpcError:
    """The answer when something of ours is away; it says no more."""
    return RpcError(INTERNAL_ERROR, "Internal error: try again later")


def write_result(request_id: str, result: Mapping[str, Any]) -> bytes:
    """A response. Raises ValueError when it is over 65,533 bytes."""
    return _write({"jsonrpc": "2.0", "id": request_id, "result": result})


def write_error(request_id: str | None, error: RpcError) -> bytes:
    """An error response; `data` is there only if the error has one."""
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return _write({"jsonrpc": "2.0", "id": request_id, "error": body})


# --- JSON ---------------------------------------------------------------------------------------


def _bad_format(why: str) -> RpcError:
    # "MUST respond with a JSON-RPC 2.0 error response with the reason "parse error" (`code` =
    # `-32700`, `id` = `null`)."
    return RpcError(PARSE_ERROR, f"Parse error: {why}")


def _read_object(payload: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON object of a message, and the same with every string in it as it is written."""
    if len(payload) > MAX_PAYLOAD:
        raise _bad_format("too long")
    # "The payload MUST NOT contain any 0 bytes."
    if b"\0" in payload:
        raise _bad_format("a 0 byte")
    try:
        text = payload.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise _bad_format("not UTF-8") from None
    _check_depth(text)
    try:
        # "The payload MUST parse as a single complete UTF-8 encoded JSON object, with optional
        # leading or trailing whitespaces": the decoder allows just these, and nothing behind them.
        members = _DECODER.decode(text)
        # Each backslash twice, and the quotes that had one: the same JSON, whose strings now
        # hold their own spelling. Backslashes stand nowhere but in strings.
        spelled = _DECODER.decode(_BACKSLASH.sub(_escape_again, text))
        # `\ud800` alone is no Unicode text, and could neither be kept nor echoed.
        _dumps(members).encode()
    except ValueError:
        raise _bad_format("not one JSON object in UTF-8") from None
    if not isinstance(members, dict):
        raise _bad_format("not an object")
    return members, spelled


def _by_name(members: Mapping[str, Any], as_written: Mapping[str, Any]) -> dict[str, Any]:
    """The members as they are written; their names, too, may have been written with escapes."""
    # Both were read from the same text: their members stand in the same order.
    return dict(zip(members, as_written.values(), strict=True))


def _check_depth(text: str) -> None:
    # Before parsing: the decoder calls itself for each level.
    depth = 0
    for sign in _STRING.sub("", _ESCAPE.sub("", text)):
        if sign in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _bad_format(f"more than {MAX_DEPTH} levels")
        elif sign in "]}":
            depth -= 1


def _escape_again(match: re.Match[str]) -> str:
    escaped = match[1]
    return r"\\" + (rf"\{escaped}" if escaped else "")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    # JSON leaves open which of two members counts: two readers could see two different requests.
    if len(members) != len(pairs):
        raise ValueError("a member twice")
    return members


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


# No parameter of ours is a number. As floats they may have any length; the limit that Python has for
# the digits of an int is no rule of JSON's.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=float, parse_constant=_no_number)


def _dumps(value: Any) -> str:
    # "characters that can be embedded into a JSON string without escapes MUST be encoded directly"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _size(spelling: str) -> int:
    return len(spelling.encode())


def _write(message: Mapping[str, Any]) -> bytes:
    payload = _dumps(message).encode()
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"an answer of {len(payload)} bytes")
    return payload
