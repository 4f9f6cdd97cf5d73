"""Where a chat server may be, and where its key is.

Invariant: a message never repeats a URL's user or query, nor what was given as the name of a variable: either may be a
secret in the wrong place.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from urllib.parse import SplitResult, urlsplit

import httpx2

from ..core.errors import ConfigError
from ..core.secrets import is_variable
from .answers import Unsent


def checked_address(base_url: object, *, with_key: bool) -> str:
    """A base URL without the slash at its end.

    Args:
        base_url: see `Endpoint`.
        with_key: whether a key is to be sent there.

    Raises:
        ConfigError: it is none, or nothing should be sent there.
    """
    parts = _split(base_url)
    host = (parts.hostname or "") if parts else ""
    if parts is None or parts.scheme not in ("http", "https") or not host:
        raise ConfigError('base_url must be a whole URL such as "http://127.0.0.1:8000/v1" or "https://host/v1"')
    if parts.username is not None or parts.password is not None:
        raise ConfigError("base_url holds a user or a password; name the variable of an API key in api_key_env")
    if parts.query or parts.fragment:
        raise ConfigError('base_url has something after "?" or "#"; it must end with the path, such as /v1')
    address = _literal(host)
    embedded = getattr(address, "ipv4_mapped", None) or address
    if embedded is not None and (embedded.is_link_local or embedded.is_multicast or embedded.is_unspecified):
        raise ConfigError(f"base_url names {host}, where no model can be (link-local, multicast or unspecified)")
    if with_key and parts.scheme == "http" and not _loopback(host):
        raise ConfigError(f"an API key would go over http to {host} for anyone to read; use https, or no api_key_env")
    return parts.geturl().rstrip("/")


def checked_variable(name: object) -> str:
    """The name of an environment variable.

    Raises:
        ConfigError: it is none; what it is instead is not repeated.
    """
    if not is_variable(name):
        raise ConfigError("api_key_env must be the name of an environment variable in capitals, such as JUDGE_API_KEY")
    return str(name)


def api_key(variable: str | None) -> str | None:
    """The key in a variable; None where no variable is named.

    Raises:
        Unsent: the variable is empty, or holds what no header can.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise Unsent(f"the environment variable {variable} (api_key_env) is not set")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Unsent(f"the environment variable {variable} (api_key_env) holds characters that no API key has")
    return key


def is_loopback(base_url: str) -> bool:
    """Whether a URL names this very machine."""
    return _loopback(urlsplit(base_url).hostname or "")


def _loopback(host: str) -> bool:
    address = _literal(host)
    return host == "localhost" if address is None else address.is_loopback


def _split(base_url: object) -> SplitResult | None:
    if not isinstance(base_url, str) or not base_url.isprintable() or " " in base_url:
        return None
    try:
        parts = urlsplit(base_url)
        _ = parts.port  # a port that is no number raises here
        httpx2.URL(base_url)
    except (ValueError, httpx2.InvalidURL):
        return None
    return parts


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is written as; None for a name.

    Raises:
        ConfigError: it is a number in one of the forms that hide which.
    """
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        packed = socket.inet_aton(host.rstrip("."))
    except OSError:
        return None
    raise ConfigError(f"base_url names the host {host!r}; write it as {ipaddress.ip_address(packed)} if it is meant")
