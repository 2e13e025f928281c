"""Whom a client's certificate names. Pure; TLS has verified the certificate before anybody asks here.

One certificate is one identity: the subject alternative name that a policy's ``tls`` lists name. It is compared byte
for byte, so each identity has one spelling, and a certificate with another one is refused. The common name is never
looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography import x509

from mapd.access.policy.model import Policy
from mapd.access.principal import Principal

_SPIFFE: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}((/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]+)+)?")
"""SPIFFE-ID.md, 2: no port, no user, no query, no percent; the path has no empty parts, none '.' or '..'."""

_SPIFFE_SCHEME: Final = re.compile("spiffe:", re.IGNORECASE)
_SPIFFE_BYTES: Final = 2_048

_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+([/?][!-~]*)?")
"""With scheme and host in small letters, and nobody before an '@'."""

_ESCAPES: Final = re.compile("%(..?)?")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

_DNS: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)

REMEMBERED: Final = 1_024
"""Certificates whose reading is remembered: each call asks, and reading one took 18 us, and finding it again 0.1."""

NEEDED: Final = (
    "needed is one SPIFFE id (a URI as 'spiffe://example.org/web'), or one other URI, or one DNS name, as subject "
    "alternative name; the common name is not looked at"
)


class Unidentified(Exception):
    """A certificate that names nobody; the message says what was found and what is needed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate is for.

    Attributes:
        name: as policies have it: "spiffe://example.org/web", "https://example.org/web", "web.example.org".
        expires: time.time() of the certificate's end.
        certificate: itself.
    """

    name: str
    expires: float
    certificate: x509.Certificate


def identity(pem: bytes) -> Identity:
    """Whom a certificate names.

    Raises:
        Unidentified: nobody, several, or somebody in an unusual spelling.
    """
    found = _read(pem)
    if isinstance(found, str):
        raise Unidentified(found)
    return found


@lru_cache(maxsize=REMEMBERED)
def _read(pem: bytes) -> Identity | str:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        uris, names = _alternatives(certificate)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        return f"the client's certificate cannot be read ({error}); {NEEDED}"
    try:
        name = _deciding(uris, names)
    except Unidentified as refused:
        return str(refused)
    return Identity(name, certificate.not_valid_after_utc.timestamp(), certificate)


def _alternatives(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    """URIs and DNS names among the subject alternative names."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    return (
        found.get_values_for_type(x509.UniformResourceIdentifier),
        found.get_values_for_type(x509.DNSName),
    )


def _deciding(uris: list[str], names: list[str]) -> str:
    # A SPIFFE certificate has no other URI (X509-SVID.md, 2), and with two of anything it is not ours to choose.
    if len(uris) > 1:
        raise Unidentified(f"the client's certificate has {len(uris)} URIs ({_listed(uris)}); {NEEDED}")
    if uris:
        return _uri(uris[0])
    if len(names) > 1:
        raise Unidentified(
            f"the client's certificate has {len(names)} DNS names ({_listed(names)}); {NEEDED}"
        )
    if names:
        return _dns(names[0])
    raise Unidentified(f"the client's certificate has no URI and no DNS name; {NEEDED}")


def _uri(text: str) -> str:
    if _SPIFFE_SCHEME.match(text):
        if len(text) <= _SPIFFE_BYTES and _SPIFFE.fullmatch(text):
            return text
        raise Unidentified(
            f"the client's certificate has the URI {text[:200]!r}, which is no SPIFFE id: 'spiffe://', a trust "
            "domain in small letters, and a path of letters, digits, '.', '_' and '-' without a slash at its end"
        )
    if _URI.fullmatch(text) is None or not all(map(_is_canonical, _ESCAPES.findall(text))):
        raise Unidentified(
            f"the client's certificate has the URI {text[:200]!r}, whose spelling is not the usual one: "
            "'scheme://host/path' with scheme and host in small letters, without a user, and '%' only before two "
            "digits of 0-9A-F that stand for what cannot stand for itself"
        )
    return text


def _is_canonical(escape: str) -> bool:
    """Of the two characters behind a '%' (RFC 3986, 6.2.2)."""
    return re.fullmatch("[0-9A-F]{2}", escape) is not None and chr(int(escape, 16)) not in _UNRESERVED


def _dns(text: str) -> str:
    if _DNS.fullmatch(text) is None:
        raise Unidentified(
            f"the client's certificate has the DNS name {text[:200]!r}; one that says who a client is has small "
            "letters, digits and '-' between dots, and no wildcard"
        )
    return text


def _listed(texts: list[str]) -> str:
    return ", ".join([repr(text[:100]) for text in texts[:3]] + ["..."] * (len(texts) > 3))


class Identities:
    """Principals by their identities, of the policy that was asked last."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._principals: dict[str, Principal] = {}

    def principal(self, name: str, policy: Policy) -> Principal:
        """Whose identity ``name`` is.

        Raises:
            Unidentified: nobody's; says which line would change that.
        """
        if policy is not self._policy:
            self._principals = {
                each: Principal(name=member.name, namespace=member.namespace)
                for member in policy.members.values()
                for each in member.tls
            }
            self._policy = policy
        found = self._principals.get(name)
        if found is None:
            asked = f"; ask {policy.contact}" if policy.contact else ""
            raise Unidentified(
                f"the client's certificate is {name!r}'s, and no principal of the policy has this identity: "
                f'add tls = ["{name}"] to its [principals.NAME]{asked}'
            )
        return found
