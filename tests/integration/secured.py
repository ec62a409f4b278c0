"""A cluster that lets nobody in unasked: SASL_SSL with SCRAM for clients and brokers, ACLs, mutual TLS for controllers.

Certificates and passwords are made on the spot by openssl and ``secrets``, and go with the directory.
"""

import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from deploy.brokers.apache import ApacheKafka
from deploy.brokers.kraft import Ports
from deploy.brokers.ready import HOST

OWNER = "owner"
"""The cluster's owner, and the brokers among themselves: may do everything."""
BROKER = "broker"
"""Name in the brokers' certificate; their controllers know one another by it."""


class SecuredKafka:
    """Apache Kafka with ``nodes`` nodes and a user for each of ``users``; ``more``: further properties of each node."""

    def __init__(self, directory: Path, users: list[str], nodes: int = 3, more: Mapping[str, str] = {}) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.passwords = {user: secrets.token_urlsafe(18) for user in (OWNER, *users)}
        self._more = more
        self.ca = directory / "ca.pem"
        self._make_certificates()
        self.broker = ApacheKafka(
            directory,
            3 if nodes == 3 else 1,
            heap_mb=256,
            properties_of=self._properties,
            client=self.librdkafka(OWNER),
            format_options=["--add-scram", f"SCRAM-SHA-512=[name={OWNER},password={self.passwords[OWNER]}]"],
        )

    def __enter__(self) -> Self:
        self.broker.start()
        try:
            self._add_users()
        except BaseException:
            self.broker.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.stop()

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    def admin(self, user: str) -> AdminClient:
        """An administrator's client of ``user``, whatever that user may do."""
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, **self.librdkafka(user)})

    def librdkafka(self, user: str) -> dict[str, str]:
        """Options of confluent-kafka."""
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.ca),
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": self.passwords[user],
        }

    def settings(self, user: str) -> dict[str, str]:
        """What a process of the product is given: the password in a file of its own."""
        file = self.directory / f"{user}.password"
        file.write_text(self.passwords[user] + "\n")
        file.chmod(0o600)
        return {
            "security_protocol": "SASL_SSL",
            "sasl_username": user,
            "sasl_password_file": str(file),
            "ssl_ca_file": str(self.ca),
        }

    def _add_users(self) -> None:
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        users = [
            UserScramCredentialUpsertion(user, scram, password.encode())
            for user, password in self.passwords.items()
            if user != OWNER
        ]
        admin = self.admin(OWNER)
        for future in admin.alter_user_scram_credentials(users).values():
            future.result()

    def _make_certificates(self) -> None:
        """A CA, and one certificate for every node: they differ by port, and a certificate names the address."""
        key, csr, cert = (self.directory / name for name in ("node.key", "node.csr", "node.crt"))
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        ca_key = str(self.directory / "ca.key")
        authority = ["-keyout", ca_key, "-out", str(self.ca), "-days", "2", "-subj", "/CN=ca"]
        signs = ["-addext", "keyUsage=critical,keyCertSign"]  # Python 3.13 takes none without it (RFC 5280, 4.2.1.3)
        self._openssl("req", "-x509", *new_key, *authority, *signs)
        self._openssl("req", *new_key, "-keyout", str(key), "-out", str(csr), "-subj", f"/CN={BROKER}")
        extensions = self.directory / "san"
        extended = "extendedKeyUsage=serverAuth,clientAuth\nauthorityKeyIdentifier=keyid"
        extensions.write_text(f"subjectAltName=IP:{HOST}\n{extended}\n")
        signing = ["-CA", str(self.ca), "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", str(extensions)]
        self._openssl("x509", "-req", "-in", str(csr), *signing, "-out", str(cert))
        (self.directory / "node.pem").write_text(key.read_text() + cert.read_text())

    @staticmethod
    def _openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def _properties(self, _node: int, ports: Ports) -> Mapping[str, str]:
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        return {
            "listeners": f"SASL_SSL://{HOST}:{ports.broker},CONTROLLER://{HOST}:{ports.controller}",
            "advertised.listeners": f"SASL_SSL://{HOST}:{ports.broker}",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                f'{login} username="{OWNER}" password="{self.passwords[OWNER]}";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.directory / "node.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
            "listener.name.controller.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{OWNER};User:CN={BROKER}",
            "allow.everyone.if.no.acl.found": "false",
            **self._more,
        }
