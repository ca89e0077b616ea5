"""The limits on messages that follow from the default settings."""

from convvae_service.calls.message_limits import MessageLimits, message_limits
from convvae_service.settings.loader import load_settings

__all__ = ["LIMITS"]

LIMITS: MessageLimits = message_limits(load_settings(["--models", "models"]))
