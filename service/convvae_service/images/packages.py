"""Packages that only some sources need."""

import importlib
from typing import Any

from convvae_service.images.source import BadSource

__all__ = ["import_package"]


def import_package(name: str) -> Any:
    """Import a package of the extra `pipeline`, or a module of one.

    Raises:
        BadSource: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        package = name.partition(".")[0]
        raise BadSource(f"{package} is not installed: pip install 'convvae[pipeline]'") from None
