"""Certificates are read again when their files change, and what cannot be used leaves the last good ones in force."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mapd.rpc.tls_files import TlsError, TlsFiles
from tests.support.pki import LOCALHOST, Authority, Files, dns, put

CA = Authority()
SERVER = CA.issue(*LOCALHOST)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return SERVER.write(tmp_path / "tls", CA.pem)


def opened(files: Files) -> TlsFiles:
    return TlsFiles(files.certificate, files.key, files.ca)


def fault(files: Files) -> str:
    with pytest.raises(TlsError) as caught:
        opened(files)
    return str(caught.value)


def said(found: TlsFiles, times: int = 3) -> list[str]:
    """What is logged when it is asked so often."""
    with structlog.testing.capture_logs() as logs:
        for _ in range(times):
            found.current()
    return [f"{line['event']}: {line.get('reason', '')}" for line in logs]


def leaf(*authority: Authority) -> x509.Certificate:
    (signer,) = authority
    return x509.load_pem_x509_certificate(signer.issue(dns("web")).certificate)


def test_the_content_is_what_the_files_have(files: Files) -> None:
    found = opened(files).material
    assert (found.generation, found.certificate, found.key) == (0, SERVER.certificate, SERVER.key)
    assert found.client_ca == CA.pem
    assert len(found.authorities) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o644, 0o777])
def test_a_key_that_others_may_use_is_refused_with_the_line_that_mends_it(files: Files, mode: int) -> None:
    files.key.chmod(mode)
    assert f"(mode {mode:04o}); chmod 600 {files.key}" in fault(files)


def test_a_key_of_another_user_is_refused(files: Files) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(files.key, 65_534, -1)
    assert f"uid 65534's, who may change it; chown 0 {files.key}" in fault(files)


def no_certificate(files: Files) -> None:
    put(files.certificate, b"")


def no_authority(files: Files) -> None:
    put(files.ca, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def no_key(files: Files) -> None:
    put(files.key, SERVER.certificate, 0o600)


def anothers_key(files: Files) -> None:
    put(files.key, CA.issue().key, 0o600)


def an_unknown_curve(files: Files) -> None:
    """As of a certificate whose kind OpenSSL knows and this daemon does not (brainpool, SM2)."""
    p256 = bytes.fromhex("06082a8648ce3d030107")
    der = x509.load_pem_x509_certificate(SERVER.certificate).public_bytes(serialization.Encoding.DER)
    assert der.count(p256) == 1
    put(files.certificate, ssl.DER_cert_to_PEM_cert(der.replace(p256, p256[:-1] + b"\x7f")).encode())


def missing(files: Files) -> None:
    files.key.unlink()


def a_pipe(files: Files) -> None:
    files.key.unlink()
    os.mkfifo(files.key, 0o600)


def enormous(files: Files) -> None:
    put(files.ca, CA.pem * 3_000)


def open_to_all(files: Files) -> None:
    files.key.chmod(0o644)


FAULTS: list[tuple[Callable[[Files], None], str]] = [
    (no_certificate, "cert.pem: no certificates in PEM form"),
    (no_authority, "ca.pem: no certificates in PEM form"),
    (no_key, "key.pem: no private key in PEM form"),
    (anothers_key, "key.pem: not the key of the certificate in"),
    (an_unknown_curve, "cert.pem: a certificate whose key cannot be used (Curve"),
    (missing, "key.pem: No such file"),
    (a_pipe, "key.pem: not a regular file"),
    (enormous, "ca.pem: more than 1048576 bytes"),
    (open_to_all, "key.pem: others than its owner may use the key"),
]


@pytest.mark.parametrize(("break_them", "words"), FAULTS)
def test_files_that_cannot_be_used_are_refused_at_the_start(
    files: Files, break_them: Callable[[Files], None], words: str
) -> None:
    break_them(files)
    assert words in fault(files)


@pytest.mark.parametrize(("break_them", "words"), FAULTS)
def test_a_change_that_cannot_be_used_leaves_the_last_good_content_and_is_logged_once(
    files: Files, break_them: Callable[[Files], None], words: str
) -> None:
    found = opened(files)
    good = found.material
    break_them(files)
    (line,) = said(found)
    assert words in line
    assert "the last good ones stay" in line
    assert found.current() is good


def test_a_change_is_used_and_logged_once(files: Files) -> None:
    found, new = opened(files), CA.issue(*LOCALHOST)
    put(files.key, new.key, 0o600)
    (line,) = said(found)
    assert "not the key of the certificate" in line  # between two files that belong together
    put(files.certificate, new.certificate)
    assert said(found) == ["certificates read again: "]
    assert (found.material.generation, found.material.certificate) == (1, new.certificate)


def test_a_fault_that_is_mended_and_comes_again_is_logged_again(files: Files) -> None:
    found = opened(files)
    files.key.chmod(0o644)
    assert len(said(found)) == 1
    files.key.chmod(0o600)
    assert said(found) == ["certificates read again: "]
    files.key.chmod(0o644)
    assert len(said(found)) == 1


def test_who_was_signed_by_an_authority_that_was_taken_out_is_not_admitted_any_more(files: Files) -> None:
    other, third = Authority("other"), Authority("third")
    put(files.ca, CA.pem + other.pem)
    found = opened(files)
    ours, others, thirds = leaf(CA), leaf(other), leaf(third)
    assert (found.admits(ours), found.admits(others)) == (True, True)
    put(files.ca, other.pem)
    found.current()
    assert (found.admits(ours), found.admits(others)) == (False, True)
    assert found.admits(thirds), "of an authority between, for all that is known"
    put(files.ca, CA.pem)
    found.current()
    assert (found.admits(ours), found.admits(others)) == (True, False)


def test_many_threads_that_ask_at_once_get_whole_contents(files: Files) -> None:
    pairs = [CA.issue(*LOCALHOST) for _ in range(8)]
    found, whole, seen = (
        opened(files),
        {(one.certificate, one.key) for one in [SERVER, *pairs]},
        set[object](),
    )
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            material = found.current()
            seen.add((material.certificate, material.key))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for pair in pairs:
        put(files.key, pair.key, 0o600)
        put(files.certificate, pair.certificate)
        assert found.current().key == pair.key
    over.set()
    for thread in threads:
        thread.join()
    assert seen <= whole
