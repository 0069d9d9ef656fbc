"""Asking an OpenAI-compatible server: one question, repeated while that may help.

Too many requests (429), server errors (5xx), timeouts, cut connections and answers that cannot
be read are asked again after a pause; any other refusal ends the work at once. The key is taken
from ``OPENAI_API_KEY``; it goes into the request's header and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx2

from demoalign.config import EndpointConfig, ServerConfig
from demoalign.endpoints.advice import KEY_VARIABLE, POLICIES, Advice
from demoalign.endpoints.backoff import Backoff, retry_after
from demoalign.errors import RolloutError

NO_KEY = "none"
"""Sent where there is no key: servers of one's own take any, but many want one to be there."""

SHOWN = 500
"""Characters of a server's message that an error repeats."""

T = TypeVar("T")


class GivenUpError(RolloutError):
    """A server kept failing on one request until the retries were used up."""


class RefusedError(RolloutError):
    """A server says no to one request, with this status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnusableError(Exception):
    """An answer of status 200 that holds nothing to be used; says why."""


class _AgainError(Exception):
    """A failure that may pass: what it was, and the seconds to wait if the server said."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


def api_key() -> str:
    """The key from the environment, or a stand-in if there is none.

    Raises:
        RolloutError: it cannot stand in a header.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise RolloutError(
            f"{KEY_VARIABLE}: must be printable ASCII, found other characters in it. Set it again."
        )
    return key or NO_KEY


def _never(_response: httpx2.Response) -> None:
    """Every refusal ends the work."""


def model_name(config: EndpointConfig, policy: str) -> str:
    """What the server calls a policy."""
    return config.models.get(policy, policy)


class Endpoint:
    """One server.

    Attributes:
        config: where it is and how often and how long to try.
        advice: what an error tells to do.
        retried: how many requests were made again so far.
    """

    def __init__(
        self, config: ServerConfig, backoff: Backoff | None = None, advice: Advice = POLICIES
    ) -> None:
        self.config = config
        self.advice = advice
        self.retried = 0
        self._backoff = backoff or Backoff()
        self._key = api_key()
        self._rests_until = 0.0

    def url(self, path: str) -> str:
        """The whole address of a path such as ``completions``."""
        return f"{self.config.base_url.rstrip('/')}/{path}"

    def client(self) -> httpx2.AsyncClient:
        """Connections for as many requests as may be under way; to be closed by the caller."""
        return httpx2.AsyncClient(
            headers=self._headers,
            timeout=None,  # `ask` limits the whole request, which httpx2 does not
            limits=httpx2.Limits(max_connections=self.config.concurrency),
        )

    async def ask(
        self,
        client: httpx2.AsyncClient,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Any], T],
        declined: Callable[[httpx2.Response], T | None] = _never,
    ) -> T:
        """POST a request until ``read`` can use the answer.

        Args:
            client: of `client`.
            path: of the API.
            body: of the request.
            read: of an answer's JSON.
            declined: what a refusal stands for that concerns this request alone, or None if it
                is to end the work.

        While the server has asked for a rest (Retry-After) no other request is begun.

        Raises:
            RefusedError: the server refuses it.
            GivenUpError: ``retries`` are used up.
        """
        failures, clock = 0, asyncio.get_running_loop().time
        if (rest := self._rests_until - clock()) > 0:
            await self._backoff.sleep(self._backoff.seconds(1, rest))
        while True:
            try:
                return await self._once(client, path, body, read, declined)
            except _AgainError as failure:
                failures += 1
                if failures > self.config.retries:
                    raise GivenUpError(
                        f"{self._asked(path, body)}: given up after {failures} tries, the last: "
                        f"{self.clean(str(failure))}. {self.advice.given_up}"
                    ) from None
                self.retried += 1
                if failure.after is not None:
                    rest = min(failure.after, self._backoff.asked_most)
                    self._rests_until = max(self._rests_until, clock() + rest)
                await self._backoff.sleep(self._backoff.seconds(failures, failure.after))

    def get(self, path: str, timeout: float) -> httpx2.Response:
        """GET a path, once.

        Raises:
            RolloutError: no answer came.
        """
        try:
            return httpx2.get(self.url(path), headers=self._headers, timeout=timeout)
        except httpx2.RequestError as error:
            raise RolloutError(
                f"{self.advice.section}.base_url: {self.config.base_url} must answer, found "
                f"{self.clean(_said(error))}. Start the server, or correct the address."
            ) from None

    def refusal(self, asked: str, response: httpx2.Response) -> RefusedError:
        """The error for an answer that says no."""
        status = response.status_code
        message = self.clean(server_message(response)).rstrip(".")
        advice = self.advice.on(status)
        if status in {401, 403} and self._key == NO_KEY:
            advice = advice.removesuffix(".") + "; none is set."
        if response.is_redirect:
            advice = f"Set {self.advice.section}.base_url to where it points."
            message = self.clean(f"it points to {response.headers.get('location', 'nowhere')}")
        return RefusedError(f"{asked}: status {status}: {message}. {advice}", status)

    def clean(self, text: str) -> str:
        """A text for people: without the key, and not too long."""
        text = self.without_key(text)
        return text if len(text) <= SHOWN else text[:SHOWN] + " ..."

    def without_key(self, text: str) -> str:
        """A text that may be stored, whatever the server has said in it."""
        return text if self._key == NO_KEY else text.replace(self._key, "[key]")

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    def _asked(self, path: str, body: Mapping[str, Any]) -> str:
        return f"POST {self.url(path)} (model {body.get('model')!r})"

    async def _once(
        self,
        client: httpx2.AsyncClient,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Any], T],
        declined: Callable[[httpx2.Response], T | None],
    ) -> T:
        try:
            async with asyncio.timeout(self.config.timeout):
                response = await client.post(self.url(path), json=body)
        except TimeoutError:
            raise _AgainError(f"no whole answer within {self.config.timeout:g} s") from None
        except httpx2.RequestError as error:
            raise _AgainError(_said(error)) from None
        if response.is_success:
            try:
                return read(response.json())
            except (ValueError, RecursionError) as error:
                raise _AgainError(f"an answer that is not JSON ({error})") from None
            except UnusableError as error:
                raise _AgainError(str(error)) from None
        if _may_pass(response):
            what = f"status {response.status_code}: {server_message(response)}"
            raise _AgainError(what, retry_after(response.headers))
        if (answer := declined(response)) is not None:
            return answer
        raise self.refusal(self._asked(path, body), response)


def server_message(response: httpx2.Response) -> str:
    """What a server says about its refusal, in any of the usual forms; else the body's text."""
    try:
        found = response.json()
    except (ValueError, RecursionError):
        return response.text.strip() or "without a message"
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return found if isinstance(found, str) else str(found)


def _may_pass(response: httpx2.Response) -> bool:
    """Whether asking again may help. An exhausted quota comes as 429 too, but does not pass."""
    status = response.status_code
    if status == 429:
        return "insufficient_quota" not in response.text
    return status == 408 or status >= 500


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
