"""Every error that the gateway raises on purpose, split by whose fault it is.

GatewayError
├── CallerError                the request cannot be served as asked
│   ├── InvalidRequest         422
│   ├── BadCursor              400
│   ├── Unauthorized           401, and in a stream whose key or token has ended
│   ├── Forbidden              403
│   ├── NotFound               404
│   ├── NotAcceptable          406
│   ├── RequestTimeout         408
│   ├── PayloadTooLarge        413
│   ├── UnsupportedMediaType   415
│   └── IdempotencyConflict    422
├── BusyError                  right, but not now: ``Retry-After``
│   ├── ConversationBusy       409
│   ├── RateLimited            429, says which limit
│   ├── Overloaded             503
│   ├── StoreAway              503, Redis cannot be reached
│   ├── IdentityAway           503, no key of the identity provider is known
│   └── Draining               503, and in a stream that shutdown cut short
├── UpstreamError              the model's server failed; in a stream only
│   ├── UpstreamUnavailable
│   ├── UpstreamRateLimited
│   ├── UpstreamTimeout        nothing before the first-token clock ran out
│   ├── UpstreamStalled        nothing for too long after it
│   ├── UpstreamBroken         cut, malformed, or ended without a finish reason
│   ├── UpstreamAuth
│   └── UpstreamRejected
└── RunError                   the run itself met a limit or a bug; in a stream only
    ├── RunTimeout
    ├── TooManyIterations
    ├── AnswerTooLarge
    ├── WorkerLost             the process that made the answer is gone
    └── Internal

Before the first byte an error becomes an HTTP status (RFC 9457 body), after it an ``error``
event. Callers switch on ``code`` only. Messages are ours and constant for each class, so that no
upstream text, key or path can leave through one; only ``CallerError`` may say more.
"""

from typing import ClassVar


class GatewayError(Exception):
    """``code`` is stable; ``status`` is HTTP's (500 where only a stream can carry the error)."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    message: ClassVar[str] = "Something went wrong in the gateway."

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.message
        super().__init__(self.detail)


class CallerError(GatewayError):
    pass


class InvalidRequest(CallerError):
    code, status = "invalid_request", 422
    message = "The request is not valid."


class BadCursor(CallerError):
    code, status = "bad_cursor", 400
    message = "The cursor is not one that this gateway issued for this run."


class Unauthorized(CallerError):
    code, status = "unauthorized", 401
    message = "A key or token that is valid here is needed."


class Forbidden(CallerError):
    code, status = "forbidden", 403
    message = "This request is not allowed."


class NotFound(CallerError):
    code, status = "not_found", 404
    message = "There is no such thing here, or it has expired."


class NotAcceptable(CallerError):
    code, status = "not_acceptable", 406
    message = "Following a link never starts a run: ask with fetch, EventSource or curl."


class RequestTimeout(CallerError):
    code, status = "request_timeout", 408
    message = "The request did not arrive in time."


class PayloadTooLarge(CallerError):
    code, status = "payload_too_large", 413
    message = "The body is larger than this gateway takes."


class UnsupportedMediaType(CallerError):
    code, status = "unsupported_media_type", 415
    message = "The body must be application/json."


class IdempotencyConflict(CallerError):
    code, status = "idempotency_conflict", 422
    message = "This Idempotency-Key was used with another body."


class BusyError(GatewayError):
    """``retry_after_s``: whole seconds after which a new try is worth it."""

    status, retryable = 503, True
    retry_after_s: int = 1


class ConversationBusy(BusyError):
    code, status = "conversation_busy", 409
    message = "An answer is being made in this conversation: wait for it, or interrupt it."
    retry_after_s = 2


class RateLimited(BusyError):
    """``limit``: which one, in words."""

    code, status = "rate_limited", 429
    message = "A limit of this caller is reached."

    def __init__(self, limit: str, retry_after_s: int) -> None:
        super().__init__(f"This caller has reached its limit of {limit}.")
        self.retry_after_s = retry_after_s


class Overloaded(BusyError):
    code = "overloaded"
    message = "The gateway is full at the moment."
    retry_after_s = 2


class StoreAway(BusyError):
    code = "overloaded"
    message = "The store that this gateway shares with others cannot be reached at the moment."
    retry_after_s = 5


class IdentityAway(BusyError):
    code = "overloaded"
    message = "Tokens cannot be checked at the moment: their identity provider cannot be reached."
    retry_after_s = 5


class Draining(BusyError):
    code = "draining"
    message = "The gateway is shutting down."
    retry_after_s = 5


class UpstreamError(GatewayError):
    pass


class UpstreamUnavailable(UpstreamError):
    code, retryable = "upstream_unavailable", True
    message = "The model's server cannot be reached or failed."


class UpstreamRateLimited(UpstreamError):
    code, retryable = "upstream_rate_limited", True
    message = "The model's server limits how often it may be asked."


class UpstreamTimeout(UpstreamError):
    code, retryable = "upstream_timeout", True
    message = "The model did not begin to answer in time."


class UpstreamStalled(UpstreamError):
    code, retryable = "upstream_stalled", True
    message = "The model stopped in the middle of its answer."


class UpstreamBroken(UpstreamError):
    code, retryable = "upstream_broken", True
    message = "The model's answer broke off before its end."


class UpstreamAuth(UpstreamError):
    code = "upstream_auth"
    message = "The model's server does not accept the gateway's credentials."


class UpstreamRejected(UpstreamError):
    code = "upstream_rejected"
    message = "The model's server rejected the request."


class RunError(GatewayError):
    pass


class RunTimeout(RunError):
    code = "run_timeout"
    message = "The answer took longer than a run may take."


class TooManyIterations(RunError):
    code = "too_many_iterations"
    message = "The model called tools more often than a run allows."


class AnswerTooLarge(RunError):
    code = "answer_too_large"
    message = "The answer grew larger than a run may hold."


class WorkerLost(RunError):
    code, retryable = "worker_lost", True
    message = "The gateway process that made this answer is gone."


class Internal(RunError):
    pass
