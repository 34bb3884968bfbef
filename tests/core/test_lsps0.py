"""LSPS0 (bLIP 50): what is a request, what is refused with which error, and how answers are written."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.errors import LspsRefused
from sidecar.core.lsps0 import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_DEPTH,
    MAX_PAYLOAD,
    PARSE_ERROR,
    RpcError,
    internal_error,
    invalid_params,
    method_not_found,
    read_request,
    write_error,
    write_result,
    written_size,
)

ID = "example#3cad6a54d302edba4c9ade2f7ffac098"


def members(**changed: Any) -> dict[str, Any]:
    """A request's members; what is changed to None is left out."""
    request = {"method": "lsps0.list_protocols", "jsonrpc": "2.0", "id": ID, "params": {}} | changed
    return {name: value for name, value in request.items() if value is not None}


def message(**changed: Any) -> bytes:
    """A request as a client sends it."""
    return json.dumps(members(**changed)).encode()


def refusal(payload: bytes) -> RpcError:
    """The error with which a message is refused."""
    with pytest.raises(RpcError) as caught:
        read_request(payload)
    return caught.value


def with_params(params: str) -> bytes:
    """A request whose params are written just so."""
    return f'{{"jsonrpc":"2.0","id":"{ID}","method":"a","params":{params}}}'.encode()


# The example of bLIP 50, byte for byte.
EXAMPLE = b"""{
  "method": "lsps0.list_protocols",
  "jsonrpc": "2.0",
  "id": "example#3cad6a54d302edba4c9ade2f7ffac098",
  "params": {}
}
"""


@pytest.mark.parametrize(
    "payload",
    [
        EXAMPLE,
        b" \t\r\n" + message() + b" \t\r\n",
        message(params=None),
        message(params={}, another_member=5),
        rb'{"\u006a\u0073onrpc":"2.0","\u0069d":"'
        + ID.encode()
        + rb'","m\u0065thod":"lsps0.list_protocols"}',
    ],
)
def test_a_request_is_one_json_object_with_whitespace_around_it(payload: bytes) -> None:
    """bLIP 50: "a single complete UTF-8 encoded JSON object", "leading or trailing whitespaces" allowed."""
    request = read_request(payload)
    assert (request.id, request.method, request.params) == (ID, "lsps0.list_protocols", {})


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"{",
        b"[ ]",
        b"5",
        b"null",
        b'"text"',
        message() + message(),
        message() + b" { ",
        b"[" + message() + b"]",
        message()[:-1],
        message() + b"\0",
        b"\0" + message(),
        message().replace(b"list", b"li\0st"),
        b"\xef\xbb\xbf" + message(),
        json.dumps(members()).encode("utf-16"),
        message().replace(b"list", b"li\xffst"),
        message().replace(b"list", b"li\xed\xa0\x80st"),  # a surrogate in UTF-8
        message().replace(b"list", b"li\xc0\xafst"),  # an overlong /
        b"\x0b" + message(),
        b"\x0c" + message(),
        "\u00a0".encode() + message(),
        message() + "\u2028".encode(),
        message(id="tab\there").replace(b"\\t", b"\t"),
    ],
)
def test_what_is_not_one_json_object_in_utf8_is_a_parse_error(payload: bytes) -> None:
    """bLIP 50: "MUST NOT parse as more than a single complete JSON object"; no 0 bytes, no BOM."""
    error = refusal(payload)
    assert (error.code, error.request_id, error.data) == (PARSE_ERROR, None, None)


@pytest.mark.parametrize(
    "payload",
    [
        with_params('{"a":1,"a":1}'),
        with_params('{"a":1,"\\u0061":2}'),
        with_params('[{"a":{"b":1,"b":2}}]'),
        message()[:-1] + b',"id":"another"}',
        with_params('{"a":NaN}'),
        with_params('{"a":Infinity}'),
        with_params('{"a":-Infinity}'),
        with_params('{"a":01}'),
        with_params('{"a":+1}'),
        with_params('{"a":0x1}'),
        with_params('{"a":1,}'),
        with_params("{'a':1}"),
        with_params('{"a":"\\x41"}'),
        with_params('{"a":"\\u00g0"}'),
        with_params('{"a":"\\ud800"}'),
        with_params('{"\\udc00":1}'),
        with_params('{"a":["\\udc00\\ud800"]}'),
        message(id="\ud800"),
        with_params('{"a":\u0661}'),  # a digit, and none of JSON's
    ],
)
def test_json_that_two_readers_could_read_differently_is_a_parse_error(payload: bytes) -> None:
    """Members twice, numbers that are none, surrogates alone: none of it reaches a method."""
    error = refusal(payload)
    assert (error.code, error.request_id) == (PARSE_ERROR, None)


@pytest.mark.parametrize(
    "changed",
    [
        {"jsonrpc": None},
        {"jsonrpc": "1.0"},
        {"jsonrpc": 2.0},
        {"method": None},
        {"method": 5},
        {"method": ["lsps0.list_protocols"]},
        {"id": None},
        {"id": 5},
        {"id": 1.5},
        {"id": True},
        {"id": ["a"]},
        {"id": {}},
        {"params": 5},
        {"params": "by word"},
        {"params": True},
    ],
)
def test_what_is_no_request_is_a_parse_error(changed: dict[str, Any]) -> None:
    """A JSON-RPC 2.0 request with a string as its id: no notification, no response, nothing else."""
    error = refusal(message(**changed))
    assert (error.code, error.request_id) == (PARSE_ERROR, None)


def test_null_is_no_id_and_no_params() -> None:
    """An id of null is a notification's by another name; params are an object, or not there."""
    assert refusal(message().replace(f'"{ID}"'.encode(), b"null")).code == PARSE_ERROR
    assert refusal(with_params("null")).code == PARSE_ERROR


@pytest.mark.parametrize("params", [[], ["a", "https://example.com"]])
def test_params_by_position_are_an_invalid_request(params: list[str]) -> None:
    """Clients "MUST NOT use by-position parameter structures": a request, and answered by its id."""
    error = refusal(message(params=params))
    assert (error.code, error.request_id) == (INVALID_REQUEST, ID)


@pytest.mark.parametrize("unit", ["a", "é", "\\u0000", '\\"', "\\\\", "😀"])
def test_an_id_is_at_most_255_bytes_as_it_is_written(unit: str) -> None:
    """What is echoed is bounded; the id of 255 bytes is echoed whole, and the next is refused."""
    size = len(unit.encode())
    text = unit * (255 // size) + "a" * (255 % size)
    payload = '{"jsonrpc":"2.0","method":"a","id":"%s"}'
    request = read_request((payload % text).encode())
    assert written_size(request.id) <= 255
    assert json.loads(write_result(request.id, {}))["id"] == json.loads(f'"{text}"')
    error = refusal((payload % (text + "a")).encode())
    assert (error.code, error.request_id) == (INVALID_REQUEST, None)


def test_depth_is_bounded_before_anything_is_parsed() -> None:
    """Thirty-two levels are read, and 10,000 are a parse error like 33, however they are opened."""
    inner = MAX_DEPTH - 2
    assert read_request(with_params('{"a":' + "[" * inner + "]" * inner + "}")).method == "a"
    for opened in (
        "[" * (inner + 1) + "]" * (inner + 1),
        "[" * 10_000 + "]" * 10_000,
        "[" * 60_000,
        '{"a":' * 10_000 + "1" + "}" * 10_000,
        '[{"a":' * 6_000,
    ):
        assert refusal(with_params('{"a":' + opened + "}")).code == PARSE_ERROR


@pytest.mark.parametrize("text", ["[" * 100, "\\\\", '\\"[[[', '\\\\\\"{', "]" * 100, "}{" * 50])
def test_brackets_in_strings_are_no_depth(text: str) -> None:
    """A string may hold what it likes."""
    request = read_request(with_params(f'{{"{text}":"{text * 20}"}}'))
    assert request.params == {json.loads(f'"{text}"'): json.loads(f'"{text}"') * 20}


def test_a_number_may_have_as_many_digits_as_it_likes() -> None:
    """No number is a parameter of ours: 60,000 digits are read in no time, and mean nothing."""
    for number in ("9" * 60_000, "-" + "9" * 60_000, "1e" + "9" * 60_000, "0." + "3" * 60_000):
        assert list(read_request(with_params(f'{{"a":{number}}}')).params) == ["a"]
    assert refusal(b"9" * 60_000).code == PARSE_ERROR


@pytest.mark.parametrize(
    "payload",
    [
        b'"' + b'\\"' * 32_000,
        b'{"a":"' + b"\\" * 65_000,
        b'"' * 65_000,
        b"{" + b'"a":[' * 13_000,
        b'{"a":1' + b" " * 65_000,
        b" " * 65_533,
        b'{"' + b"\\u0061" * 10_000 + b'":1',
    ],
)
def test_no_message_takes_long_to_refuse(payload: bytes) -> None:
    """The reader's work is in proportion to the message: a second would be a hundred times too long."""
    begun = time.process_time()
    assert refusal(payload).code == PARSE_ERROR
    assert time.process_time() - begun < 1


def test_a_message_is_at_most_65533_bytes() -> None:
    """As long as BOLT 8 allows, and no longer."""
    payload = message()
    assert read_request(payload + b" " * (MAX_PAYLOAD - len(payload))).id == ID
    assert refusal(payload + b" " * (MAX_PAYLOAD - len(payload) + 1)).code == PARSE_ERROR


@pytest.mark.parametrize(
    ("written", "value", "size"),
    [
        ("wallet", "wallet", 6),
        ("", "", 0),
        (r"\n", "\n", 2),
        (r"\u0041", "A", 6),
        (r"\u0000", "\0", 6),
        (r"\\u0041", "\\u0041", 7),
        (r"\"", '"', 2),
        (r"\\", "\\", 2),
        (r"\\\"\\", '\\"\\', 6),
        (r"\/\b\f", "/\b\f", 6),
        (r"\ud83d\ude00", "😀", 12),
        ("😀", "😀", 4),
        ("é", "é", 2),
    ],
)
def test_sizes_are_of_strings_as_they_are_written(written: str, value: str, size: int) -> None:
    r"""As bLIP 55 counts: "with `\` escape codes counting as multiple bytes", and without the quotes."""
    request = read_request(with_params(f'{{"n":1,"{written}b":"{written}","c":["x"]}}'))
    assert request.params == {"n": 1, f"{value}b": value, "c": ["x"]}
    assert request.sizes == {f"{value}b": size}


@given(st.dictionaries(st.text(), st.text(), max_size=4), st.booleans())
def test_the_size_of_what_json_writes_is_what_it_wrote(params: dict[str, str], ascii_only: bool) -> None:
    """Whatever the strings are, and however they were escaped, their sizes are found."""
    try:
        json.dumps(params, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    request = read_request(json.dumps(members(params=params), ensure_ascii=ascii_only).encode())
    assert request.params == params
    assert request.sizes == {
        name: len(json.dumps(value, ensure_ascii=ascii_only).encode()) - 2 for name, value in params.items()
    }
    assert all(written_size(value) <= request.sizes[name] for name, value in params.items())


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON_VALUES,
        "id": st.text() | JSON_VALUES,
        "method": st.text() | JSON_VALUES,
        "params": JSON_VALUES,
    },
).map(lambda request: json.dumps(request).encode())
PIECES = st.lists(
    st.sampled_from([b"{", b"}", b"[", b"]", b'"', b"\\", b":", b",", b"1", b"id", b"u", b"null", b" "])
).map(b"".join)


@pytest.mark.parametrize("member", ["result", "error"])
def test_an_answer_is_no_request_and_gets_none(member: str) -> None:
    """We ask clients nothing: a complaint about our answer, answered in turn, would go on for ever."""
    with pytest.raises(LspsRefused) as caught:
        read_request(b'{"jsonrpc":"2.0","id":null,"%s":{"code":-32700}}' % member.encode())
    assert not isinstance(caught.value, RpcError)


@given(st.binary() | NEARLY | PIECES | st.builds(lambda a, b: a[:20] + b + a[20:], NEARLY, st.binary()))
def test_any_bytes_are_a_request_or_a_typed_error(payload: bytes) -> None:
    """Nothing that a stranger sends raises anything else, and each error can be written as an answer."""
    try:
        request = read_request(payload)
    except RpcError as error:
        answer = json.loads(write_error(error.request_id, error))
        assert answer["error"]["code"] in {PARSE_ERROR, INVALID_REQUEST}
    except LspsRefused:
        assert b"error" in payload or b"result" in payload or b"\\" in payload
    else:
        assert json.loads(write_result(request.id, {}))["id"] == request.id
        assert set(request.sizes) <= set(request.params)


def test_a_result_is_written_as_blip_50_shows_it() -> None:
    """A JSON-RPC 2.0 response; "characters that can be embedded [...] without escapes MUST be"."""
    assert write_result("é/\n", {"protocols": [5]}) == (
        '{"jsonrpc":"2.0","id":"é/\\n","result":{"protocols":[5]}}'.encode()
    )


def test_an_error_is_written_with_data_only_if_it_has_some() -> None:
    """bLIP 50's example for unrecognized params, and an error without `data`."""
    error = invalid_params("Invalid params", ["future_feature1_param"])
    assert json.loads(write_error("42", error)) == {
        "jsonrpc": "2.0",
        "error": {
            "code": -32602,
            "message": "Invalid params",
            "data": {"unrecognized": ["future_feature1_param"]},
        },
        "id": "42",
    }
    assert json.loads(write_error("42", method_not_found())) == {
        "jsonrpc": "2.0",
        "error": {"code": -32601, "message": "Method not found"},
        "id": "42",
    }
    assert json.loads(write_error("42", internal_error()))["error"]["code"] == -32603


def test_a_parse_error_is_answered_with_an_id_of_null() -> None:
    """In bLIP 50's words, "with the reason "parse error" (`code` = `-32700`, `id` = `null`)"."""
    answer = json.loads(write_error(None, refusal(b"{")))
    assert answer["id"] is None
    assert answer["error"]["code"] == -32700
    assert "data" not in answer["error"]


@pytest.mark.parametrize("unit", ["a", "é", "\0", '"', "\\"])
@pytest.mark.parametrize("length", [1, 100, 8_000, 48_000, 65_000])
def test_no_answer_is_longer_than_a_message(unit: str, length: int) -> None:
    """LND hangs up on a peer to whom a message is longer: what is echoed of names is bounded."""
    names = (unit * (length - 8) + f"{number:08}" for number in range(1 + 65_000 // length))
    error = invalid_params("Invalid params", names)
    assert error.code == INVALID_PARAMS
    assert error.data is not None
    assert len(write_error("\0" * 42, error)) <= MAX_PAYLOAD


def test_names_that_fit_are_all_listed() -> None:
    """The bound is on what no honest client sends: a thousand names of 40 bytes are listed."""
    names = [f"{number:040}" for number in range(1_000)]
    assert invalid_params("Invalid params", names).data == {"unrecognized": names}


def test_an_answer_that_would_be_too_long_is_never_written() -> None:
    """It is a fault of ours, and shows as one, before LND hangs up for it."""
    room = MAX_PAYLOAD - len(write_result("a", {"text": ""}))
    assert len(write_result("a", {"text": "x" * room})) == MAX_PAYLOAD
    with pytest.raises(ValueError, match="65534"):
        write_result("a", {"text": "x" * (room + 1)})


def test_the_reader_needs_no_deep_stack() -> None:
    """The deepest message that is read is read with little stack left."""
    inner = MAX_DEPTH - 2
    payload = with_params('{"a":' + "[" * inner + "]" * inner + "}")
    depth = 0
    frame = sys._getframe()
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(depth + 100)
        assert read_request(payload).method == "a"
    finally:
        sys.setrecursionlimit(before)
