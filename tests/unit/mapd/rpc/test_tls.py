"""A certificate names one identity, in one spelling, and that is one principal's or nobody's."""

from __future__ import annotations

import pytest
from cryptography import x509

from mapd.access.policy.file import parse
from mapd.access.policy.model import Policy
from mapd.rpc.tls import Identities, Unidentified, identity
from tests.support.pki import Authority, dns, uri

CA = Authority()


def named(*names: x509.GeneralName) -> str:
    return identity(CA.issue(*names, common_name="admin").certificate).name


def refusal(*names: x509.GeneralName) -> str:
    with pytest.raises(Unidentified) as caught:
        named(*names)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([uri("spiffe://example.org/ns/web")], "spiffe://example.org/ns/web"),
        ([uri("spiffe://example.org")], "spiffe://example.org"),
        ([uri("spiffe://example.org/web"), dns("web.example.org"), dns("b")], "spiffe://example.org/web"),
        ([uri("https://example.org/web?a=%20")], "https://example.org/web?a=%20"),
        ([dns("web.example.org"), uri("https://example.org/web")], "https://example.org/web"),
        ([dns("web.example.org")], "web.example.org"),
        ([x509.RFC822Name("a@example.org"), dns("web")], "web"),
    ],
)
def test_one_spiffe_id_or_one_uri_or_one_dns_name_decides(
    names: list[x509.GeneralName], expected: str
) -> None:
    assert named(*names) == expected


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no URI and no DNS name"),
        ([x509.RFC822Name("web@example.org")], "no URI and no DNS name"),
        ([uri("spiffe://a/x"), uri("spiffe://a/y")], "2 URIs ('spiffe://a/x', 'spiffe://a/y')"),
        ([uri("spiffe://a/x"), uri("https://a/y")], "2 URIs"),
        ([uri("https://a/x"), uri("https://a/y"), dns("web")], "2 URIs"),
        ([dns("a"), dns("b")], "2 DNS names ('a', 'b')"),
    ],
)
def test_none_or_several_of_the_kind_that_decides_are_refused(
    names: list[x509.GeneralName], words: str
) -> None:
    message = refusal(*names)
    assert words in message
    assert "needed is one SPIFFE id" in message
    assert "the common name is not looked at" in message


@pytest.mark.parametrize(
    "text",
    [
        "SPIFFE://example.org/web",
        "spiffe://Example.org/web",
        "spiffe://example.org/web/",
        "spiffe://example.org//web",
        "spiffe://example.org/../web",
        "spiffe://example.org/a/.",
        "spiffe://example.org/w%65b",
        "spiffe://example.org/web?x",
        "spiffe://example.org/web#x",
        "spiffe://example.org:80/web",
        "spiffe://user@example.org/web",
        "spiffe:example.org/web",
        "spiffe:///web",
        "spiffe://example.org/" + "a" * 2_048,
    ],
)
def test_a_uri_that_is_nearly_a_spiffe_id_is_refused(text: str) -> None:
    assert "which is no SPIFFE id" in refusal(uri(text))


@pytest.mark.parametrize(
    "text",
    [
        "HTTPS://example.org/web",
        "https://Example.org/web",
        "https://example.org/w%65b",
        "https://example.org/%2f",
        "https://example.org/%zz",
        "https://example.org/%",
        "https://user@example.org/web",
        "https://exa%6Dple.org/web",
        "urn:uuid:0",
        "https://",
        "web.example.org",
        "https://example.org/a b",
    ],
)
def test_a_uri_in_another_spelling_is_refused(text: str) -> None:
    assert "whose spelling is not the usual one" in refusal(uri(text))


@pytest.mark.parametrize(
    "text",
    [
        "*.example.org",
        "Web.example.org",
        "web.example.org.",
        "spiffe://example.org/web",
        "https://a/b",
        "",
        "a..b",
        "-a",
    ],
)
def test_what_is_no_plain_dns_name_is_refused_as_one(text: str) -> None:
    assert f"the DNS name {text!r}" in refusal(dns(text))


def test_bytes_that_are_no_certificate_are_refused() -> None:
    with pytest.raises(Unidentified, match="cannot be read"):
        identity(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def policy(text: str) -> Policy:
    return parse(text.encode(), "policy.toml")


WEB = '[principals.web]\nnamespace = "edge"\ntls = ["spiffe://example.org/web", "web.example.org"]\n'


def test_an_identity_is_the_principal_that_lists_it() -> None:
    found = Identities().principal("web.example.org", policy(WEB))
    assert (found.name, found.namespace) == ("web", "edge")


def test_an_identity_that_nobody_lists_is_told_the_line_that_admits_it() -> None:
    with pytest.raises(Unidentified) as caught:
        Identities().principal("spiffe://example.org/w", policy('contact = "netops"\n' + WEB))
    message = str(caught.value)
    assert 'add tls = ["spiffe://example.org/w"] to its [principals.NAME]; ask netops' in message


def test_identities_follow_the_policy_in_force() -> None:
    identities, before = Identities(), policy(WEB)
    assert identities.principal("web.example.org", before).name == "web"
    after = policy(WEB.replace("web.example.org", "other.example.org"))
    with pytest.raises(Unidentified):
        identities.principal("web.example.org", after)
    assert identities.principal("other.example.org", after).name == "web"


def test_one_identity_of_two_principals_is_no_policy() -> None:
    with pytest.raises(Exception, match=r"web\.example\.org"):
        policy(WEB + '[principals.other]\ntls = ["WEB.example.org"]\n')
