import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from network.tcp import Limits


@pytest.fixture
def contexts(tmp_path):
    """TLS 1.3: a server with a self-signed certificate, and a client that trusts it."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, None)
    )
    pem = serialization.Encoding.PEM
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(path)
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return server, client


def test_the_same_connection_runs_inside_tls(run, contexts):
    async def scenario(network):
        server, client = network.Recorder(), network.Recorder()
        await network.listen(server, ssl=contexts[0])
        dialler = network.dial(client, ssl=contexts[1])
        await client.opened.get()
        assert dialler.send(b"x" * 200_000)
        assert await server.frames.get() == (network.bob.public_key, b"x" * 200_000)

    run(scenario)


def test_a_listener_with_tls_bounds_and_drops_those_who_never_begin_it(run, contexts):
    async def scenario(network):
        limits = Limits(handshake_seconds=0.1, max_unauthenticated=1)
        await network.listen(network.Recorder(), limits, ssl=contexts[0])
        silent = await network.raw()
        await (await network.raw()).ended()
        assert network.counters["too-many-unauthenticated"] == 1
        await silent.ended()
        await network.counters.reach("tls-failed")
        late = await network.raw()
        await late.ended()
        await network.counters.reach("tls-failed", 2)

    run(scenario)


def test_a_dialler_that_does_not_trust_the_certificate_does_not_connect(run, contexts):
    async def scenario(network):
        client = network.Recorder()
        await network.listen(network.Recorder(), ssl=contexts[0])
        network.dial(client, ssl=ssl.create_default_context())
        await network.dialler_counters.reach("dial-failed", 2)
        assert client.opened.empty()

    run(scenario)
