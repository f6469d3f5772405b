"""The certificate that the server shows: read from its files, checked, and read again when they change.

A pair that can't work stops the start, and changes nothing later: the server goes on with the pair that it has. A new
pair is for new connections; those that are open keep theirs.
"""

import os
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import structlog
import trio
from cryptography import x509

from voice_agent.core.errors import OperatorError
from voice_agent.core.units import MIB, SECONDS
from voice_agent.observability.metrics import Metrics
from voice_agent.settings.schema import ServerSettings

CHECK_SECONDS: Final = 5 * SECONDS
"""How often the files are looked at: two system calls. A certificate is replaced days before it ends."""
MAX_FILE_BYTES: Final = 1 * MIB

log = structlog.get_logger(__name__)

_Signature = tuple[tuple[int, int, int, int], ...]


class TlsFilesError(OperatorError):
    """Certificate and key can't be used: unreadable, not for each other, out of date, or the key is open to all."""

    code = "tls_files"


class ServerTls:
    """The pair in use; made by :func:`open_tls`."""

    def __init__(
        self,
        certificate_file: Path,
        key_file: Path,
        *,
        metrics: Metrics,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read the files; raises :class:`TlsFilesError`."""
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._metrics = metrics
        self._now = now
        self._asked = trio.Event()
        self._tried = self._signature()
        self.context = self._load()
        """For new connections; another one after each reload."""

    def reload(self) -> bool:
        """Take the files as they are now, and return whether they could be used; reads files, and so may block."""
        self._tried = self._signature()
        try:
            self.context = self._load()
        except TlsFilesError as error:
            self._metrics.tls_reloads_total.labels("refused").inc()
            log.warning("tls_reload_refused", reason=error.message)
            return False
        self._metrics.tls_reloads_total.labels("done").inc()
        log.info("tls_reloaded", certificate=str(self._certificate_file))
        return True

    def ask(self) -> None:
        """Have the files looked at now rather than in a while."""
        self._asked.set()

    async def watch(self) -> NoReturn:
        """Reload whenever the files have changed."""
        while True:
            with trio.move_on_after(CHECK_SECONDS):
                await self._asked.wait()
            self._asked = trio.Event()
            await trio.to_thread.run_sync(self._reload_if_changed)

    def _reload_if_changed(self) -> None:
        if self._signature() != self._tried:
            self.reload()

    def _signature(self) -> _Signature:
        """What changes when a file is written, renamed over, or a link to it is turned; nothing where one is missing."""
        try:
            found = [os.stat(path) for path in (self._certificate_file, self._key_file)]  # noqa: PTH116 - follows links
        except OSError:
            return ()
        return tuple((file.st_dev, file.st_ino, file.st_mtime_ns, file.st_size) for file in found)

    def _load(self) -> ssl.SSLContext:
        leaf = self._read_certificate()
        self._check_key()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # RFC 7301; nothing else is spoken here.
        context.set_alpn_protocols(["http/1.1"])
        # A client that renegotiates makes the server work for it (TLS 1.2 only; TLS 1.3 has none).
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(self._certificate_file, self._key_file, password=_refuse_password)
        except ssl.SSLError as error:
            raise TlsFilesError(
                f"{self._certificate_file} and {self._key_file} can't be used together: "
                f"{_MEANINGS.get(error.reason or '', error.reason or str(error))}",
                field="server.tls_key_file",
            ) from None
        except OSError as error:
            raise self._unreadable(self._key_file, error, "server.tls_key_file") from None
        self._metrics.tls_certificate_expiry_seconds.set(leaf.not_valid_after_utc.timestamp())
        return context

    def _read_certificate(self) -> x509.Certificate:
        field = "server.tls_certificate_file"
        try:
            with self._certificate_file.open("rb") as file:
                content = file.read(MAX_FILE_BYTES)
            leaf = x509.load_pem_x509_certificates(content)[0]
        except OSError as error:
            raise self._unreadable(self._certificate_file, error, field) from None
        except ValueError:
            raise TlsFilesError(
                f"{self._certificate_file} holds no certificate in PEM", field=field
            ) from None
        if self._now() > leaf.not_valid_after_utc:
            raise TlsFilesError(
                f"the certificate in {self._certificate_file} ended on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                field=field,
            )
        if self._now() < leaf.not_valid_before_utc:
            raise TlsFilesError(
                f"the certificate in {self._certificate_file} begins on "
                f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only; check the clock",
                field=field,
            )
        return leaf

    def _check_key(self) -> None:
        field = "server.tls_key_file"
        try:
            mode = self._key_file.stat().st_mode
        except OSError as error:
            raise self._unreadable(self._key_file, error, field) from None
        if mode & stat.S_IROTH:
            raise TlsFilesError(
                f"{self._key_file} can be read by every user; take that right away (chmod o-r)", field=field
            )

    @staticmethod
    def _unreadable(path: Path, error: OSError, field: str) -> TlsFilesError:
        return TlsFilesError(f"{path} can't be read: {error.strerror or error}", field=field)


def open_tls(server: ServerSettings, metrics: Metrics) -> ServerTls | None:
    """Read the pair that the settings name; None where they name none.

    Raises:
        TlsFilesError: it can't be used.
    """
    if not server.tls_certificate_file:
        return None
    return ServerTls(Path(server.tls_certificate_file), Path(server.tls_key_file), metrics=metrics)


def _refuse_password() -> str:
    """Answer for a key that is encrypted; without this OpenSSL would ask the terminal."""
    return ""


_MEANINGS: Final = {
    "KEY_VALUES_MISMATCH": "the key is not that of the certificate",
    "BAD_DECRYPT": "the key is encrypted; store it unencrypted, readable by the server alone",
    "EE_KEY_TOO_SMALL": "the key is too short for today",
    "CA_MD_TOO_WEAK": "the certificate is signed in a way that is too weak for today",
}
