"""How a model server is reached: through the proxy that the environment names for it, or directly. A server on this machine needs none.

The HTTP client is built with this one decision, so a proxy that is not needed cannot stop it (a SOCKS proxy needs a package).
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import ssl
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from milepost.core import DataError


def proxy_of(url: str) -> str | None:
    """Returns the proxy that the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) names for this address, None if it needs
    none.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_here(host) or proxy_bypass(parts.netloc) or proxy_bypass(host) or _inside(host, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def client_settings(url: str) -> dict[str, Any]:
    """Returns the arguments with which an HTTP client reaches this address. DataError for a proxy that cannot be used; the message hides
    its user and password.
    """
    settings: dict[str, Any] = {"trust_env": False}
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):  # else the client's own list of authorities
        settings["verify"] = ssl.create_default_context()
    proxy = proxy_of(url)
    if proxy is None:
        return settings
    parts = urlsplit(proxy)
    address = f"{parts.scheme}://{parts.hostname}"
    if parts.scheme not in ("http", "https", "socks5", "socks5h") or not parts.hostname:
        raise DataError(f"the environment names the proxy {address} for {urlsplit(url).hostname}; it should be http, https or socks5")
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise DataError(
            f"the environment names the SOCKS proxy {address} for {urlsplit(url).hostname}, which needs a package: pip install socksio "
            "(or name the host in NO_PROXY)"
        )
    return {**settings, "proxy": proxy}


def _is_here(host: str) -> bool:
    """Returns whether the host is this machine, by its name or number."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _inside(host: str, networks: str) -> bool:
    """Returns whether this number is in one of the networks of NO_PROXY, such as 10.0.0.0/8."""
    for each in networks.split(","):
        try:
            if "/" in each and ipaddress.ip_address(host) in ipaddress.ip_network(each.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
