"""A server refuses a request, or cannot be asked at all."""

from __future__ import annotations

from inferq.errors.base import InferqError


class ApiError(InferqError):
    """The server refused the request for a reason of its own; `status` and `code` are those of its answer."""

    code = "api"
    status = 400

    def __init__(self, message: str, *, status: int | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status = self.status if status is None else status
        self.code = code or self.code


class Unauthenticated(ApiError):
    """The request carries no valid key; nothing was done. Which part of a key was wrong is never said."""

    code = "unauthenticated"
    status = 401


class Forbidden(ApiError):
    """The key is valid but does not cover this: role, priority ceiling, model, executor or tenant. Nothing was done."""

    code = "forbidden"
    status = 403


class InvalidRequest(ApiError):
    """A body or parameter is not what the route takes. `field` is the path in the body (`template.payload`), `parameter` the name of a
    query, path or header parameter."""

    code = "bad_request"

    def __init__(self, message: str, *, field: str = "", parameter: str = "") -> None:
        super().__init__(f"{field or parameter}: {message}" if field or parameter else message)
        self.field = field
        self.parameter = parameter


class NoSuchRoute(ApiError):
    """The server has nothing at that path."""

    code = "no_such_route"
    status = 404


class WrongMethod(ApiError):
    """The path exists, but not with that method; `allowed` are those it has."""

    code = "wrong_method"
    status = 405

    def __init__(self, message: str, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


class NotAcceptable(ApiError):
    """The request accepts only media types that the route cannot answer with."""

    code = "not_acceptable"
    status = 406


class BodyTimeout(ApiError):
    """The body did not come within the server's time."""

    code = "body_timeout"
    status = 408
    retryable = True


class BodyTooLarge(ApiError):
    """The body has more bytes than the server takes."""

    code = "payload_too_large"
    status = 413


class UnsupportedMedia(ApiError):
    """The body's content type or encoding is not one that the route takes."""

    code = "unsupported_media"
    status = 415


class TransportError(InferqError):
    """The server could not be asked, or its answer could not be understood."""

    code = "transport"
    status = 502
    retryable = True


class ConnectFailed(TransportError):
    """There is no server at that address, or it cannot be reached; the request was not sent."""

    code = "connect_failed"


class ConnectionLost(TransportError):
    """The connection was cut after the request left and before its answer had come; it may have been carried out."""

    code = "connection_lost"


class RequestTimeout(TransportError, TimeoutError):
    """No answer came in time; the request may have been carried out."""

    code = "request_timeout"
    status = 504


class ProtocolError(TransportError):
    """Something answered, but not as an inferq server of a version that this client understands."""

    code = "protocol"
    retryable = False
