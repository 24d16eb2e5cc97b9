"""What one request, one client and all of them together may ask of the server."""

from dataclasses import dataclass

MAX_TEXTS = 64
"""Texts of one request."""
MAX_CHARACTERS = 100_000
"""Of one text; the longest IMDB review has 14,000."""
MAX_PROMPT_CHARACTERS = 10_000
MAX_NEW_TOKENS = 400
MAX_SAMPLES = 8


@dataclass(frozen=True)
class Limits:
    """Bounds on size, number and time."""

    body_bytes: int = 2**20
    """Of a request's body; more is 413."""
    waiting: int = 128
    """Requests for predictions that may wait for a batch; more are 503."""
    slow_waiting: int = 8
    """Explanations and generations that run or wait; more are 503."""
    connections: int = 256
    """Open at once; more are 503."""
    header_s: float = 10.0
    """From a connection or the last answer to the end of the next request's header; then it is closed."""
    body_s: float = 10.0
    """To receive a body; then 408."""
    request_s: float = 30.0
    """To compute an answer; then 503."""

    @property
    def whole_s(self) -> float:
        """To receive a body, compute and send the answer; a client that reads slower loses the connection."""
        return self.body_s + self.request_s + self.header_s
