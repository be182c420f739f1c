"""The terminal face. `chat(opener, options)` is its door; see README.md."""

from helmsman.terminal.app import Options, chat
from helmsman.terminal.host import Approval, Host, ModelChoice, Opened, Opener

__all__ = ["Approval", "Host", "ModelChoice", "Opened", "Opener", "Options", "chat"]
