"""What `docker compose up` needs, each into the volume of its service: passwords, the secret that
signs sessions, a keys file without keys, a certificate.

    python make_secrets.py GIVEN MADE

GIVEN: a folder of what the operator gave; an empty file counts as absent. ``env``: lines for the
gateway's ``.env``, where OPENAI_API_KEY belongs. ``certificate`` and ``key``: PEM, both or none.
MADE: a folder with one folder for each service; its files are for their group and nobody else.
Passwords, the secret and the keys file stay as they are once they exist; what depends on GIVEN is
written anew each time.
"""

import secrets
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

VALID = timedelta(days=365)
RENEWED_BEFORE = timedelta(days=30)
HOSTS = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")
# As `python -m app keys` writes it. With this one a gateway starts and lets nobody in.
NO_KEYS = '{"version": 1, "keys": []}\n'


class Refused(Exception):
    """The text is one line for the person who starts it."""


def main(given: Path, made: Path) -> None:
    redis = password(made / "redis/password")
    write(made / "redis/redis.conf", f"requirepass {redis}\n")
    password(made / "postgres/superuser")  # asked for by the image; nobody uses it
    postgres = password(made / "postgres/password")
    password(made / "gateway/session_secret")
    if not (made / "keys/keys.json").exists():
        write(made / "keys/keys.json", NO_KEYS)
    # What is given comes last and wins: a database elsewhere, for instance.
    write(
        made / "gateway/gateway.env",
        f"GATEWAY_REDIS_URL=redis://:{redis}@redis:6379/0\n"
        f"GATEWAY_DATABASE_URL=postgresql://gateway:{postgres}@postgres:5432/gateway\n"
        + read(given / "env"),
    )
    certificate, key = read(given / "certificate"), read(given / "key")
    if bool(certificate) != bool(key):
        raise Refused("TLS_CERTIFICATE_FILE and TLS_KEY_FILE belong together: one is missing")
    if key:
        write(made / "nginx/key.pem", key)
        write(made / "nginx/certificate.pem", certificate)
    elif not still_good(made / "nginx/certificate.pem"):
        make_certificate(made / "nginx")


def read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except PermissionError:
        raise Refused(
            f"the file given as {path.name} cannot be read by user 10001: "
            "setfacl -m u:10001:r FILE lets it"
        ) from None


def write(path: Path, text: str) -> None:
    """Never half: who reads it while it is written gets the old one."""
    path.parent.mkdir(exist_ok=True)  # the image has them all, each for a volume
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o640)
    draft.write_text(text)
    draft.replace(path)


def password(path: Path) -> str:
    """What the file holds, or 256 new bits."""
    if not path.exists():
        write(path, secrets.token_hex(32))
    return path.read_text()


def still_good(path: Path) -> bool:
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    is_ours = certificate.issuer == certificate.subject == name()
    return is_ours and certificate.not_valid_after_utc - datetime.now(UTC) > RENEWED_BEFORE


def make_certificate(folder: Path) -> None:
    """For this machine alone: a browser warns of it once."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    hosts = [x509.DNSName(host) for host in HOSTS]
    addresses = [x509.IPAddress(ip_address(address)) for address in ADDRESSES]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name())
        .issuer_name(name())
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([*hosts, *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write(folder / "key.pem", pem.decode())
    write(folder / "certificate.pem", certificate.public_bytes(serialization.Encoding.PEM).decode())


def name() -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "sse-gateway, self-signed")])


if __name__ == "__main__":
    try:
        main(*(Path(argument) for argument in sys.argv[1:3]))
    except Refused as refused:
        sys.exit(f"secrets: {refused}")
