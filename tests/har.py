"""HAR 1.2 as a JSON schema, inside the wire object that carries it; ``check_entry`` judges every entry in a test.

The schema is closed: a field that neither HAR nor the wire format names is an error.
Source: the HAR 1.2 specification (W3C web performance group, archived), and the wire format of ReadMe's Metrics API.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final, NoReturn

from jsonschema import Draft202012Validator

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
SIZE: Final[Schema] = {"type": "integer", "minimum": -1}
DURATION: Final[Schema] = {"type": "number", "minimum": 0}


def _object(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def _list(of: Schema, **more: int) -> Schema:
    return {"type": "array", "items": of, **more}


NAME_VALUES: Final = _list(_object({"name": TEXT, "value": TEXT}))
PARAMS: Final = _list(_object({"name": TEXT}, value=TEXT, fileName=TEXT, contentType=TEXT))
POST_DATA: Final[Schema] = {
    "oneOf": [_object({"mimeType": TEXT, "text": TEXT}), _object({"mimeType": TEXT, "params": PARAMS})]
}
CONTENT: Final = _object({"text": TEXT, "size": SIZE, "mimeType": TEXT}, encoding={"const": "base64"})
NO_COOKIES: Final = _list({}, maxItems=0)
REQUEST: Final = _object(
    {
        "method": TEXT,
        "url": TEXT,
        "httpVersion": TEXT,
        "headers": NAME_VALUES,
        "queryString": NAME_VALUES,
        "cookies": NO_COOKIES,
        "headersSize": {"const": -1},
        "bodySize": SIZE,
    },
    postData=POST_DATA,
)
RESPONSE: Final = _object(
    {
        "status": {"type": "integer", "minimum": 0},
        "statusText": TEXT,
        "httpVersion": TEXT,
        "headers": NAME_VALUES,
        "cookies": NO_COOKIES,
        "redirectURL": TEXT,
        "headersSize": {"const": -1},
        "bodySize": SIZE,
        "content": CONTENT,
    }
)
ENTRY: Final = _object(
    {
        "pageref": TEXT,
        "startedDateTime": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
        "time": DURATION,
        "request": REQUEST,
        "response": RESPONSE,
        "cache": _object({}),
        "timings": _object({"send": {"const": 0}, "wait": DURATION, "receive": {"const": 0}}),
    }
)
CREATOR: Final = _object({"name": {"const": "readme-metrics (python)"}, "version": TEXT, "comment": TEXT})
LOG: Final = _object({"version": {"const": "1.2"}, "creator": CREATOR, "entries": _list(ENTRY, minItems=1, maxItems=1)})
WIRE: Final = _object(
    {
        "_id": {"type": "string", "pattern": r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"},
        "_version": {"const": 3},
        "group": _object(
            {"id": {"type": "string", "pattern": r"^sha512-[0-9A-Za-z+/]{86}==\?"}}, label=TEXT, email=TEXT
        ),
        "clientIPAddress": TEXT,
        "development": {"type": "boolean"},
        "request": _object({"log": LOG}),
    }
)

_validator: Final = Draft202012Validator(WIRE)


def check_entry(entry: bytes) -> dict[str, Any]:
    """Assert that these bytes are one entry as ReadMe takes it, and return it decoded."""
    decoded: dict[str, Any] = json.loads(entry.decode("utf-8"), parse_constant=_refuse)
    _validator.validate(decoded)
    _check_encodings(har_entry(decoded))
    return decoded


def har_entry(decoded: dict[str, Any]) -> dict[str, Any]:
    """The one HAR entry of a decoded wire object: its request, response and timings."""
    entry: dict[str, Any] = decoded["request"]["log"]["entries"][0]
    return entry


def _check_encodings(entry: dict[str, Any]) -> None:
    content = entry["response"]["content"]
    if "encoding" in content:
        _check_base64(content["text"])


def _check_base64(text: str) -> None:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise AssertionError(f"content says base64 and is not: {text[:80]!r}") from error


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")
