"""The statuses in docs/service.md are those of the code, and the wire contract states the same numbers."""

import re
from pathlib import Path

from convvae_service.errors import ServiceError
from convvae_service.server.connections import receive_limit
from convvae_service.settings.loader import load_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/service.md").read_text()
PROTO = (ROOT / "protos/convvae/v1/vae.proto").read_text()


def test_every_error_of_a_caller_is_in_the_table() -> None:
    """The page names the status and the reason of each error, and no other reason."""
    rows = re.findall(r"^\| `([A-Z_]+)`[^|]*\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted((error.status, error.reason) for error in ServiceError.__subclasses__())


def test_the_limit_of_grpc_is_stated_as_it_is() -> None:
    """Page and contract say from which multiple of the limit on a message gRPC refuses it."""
    settings = load_settings(["--models", "unused"])
    times = f"{receive_limit(settings) / settings.max_message_bytes:g}"
    assert f"gRPC refused a message of more than {times} times `max_message_bytes`" in PAGE
    assert f"A message of more than {times} times `max_message_bytes`" in PROTO.replace("\n// ", " ")
