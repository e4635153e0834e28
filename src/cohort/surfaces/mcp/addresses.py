"""Where agents' clients find things on control's port. A module of its own: `cohort mcp` starts without the server's parts."""

from __future__ import annotations

MCP_PATH = "/mcp"
TOKEN_PATH = "/api/v1/oauth/token"  # noqa: S105
REVOKE_PATH = "/api/v1/oauth/revoke"
METADATA_PATH = "/.well-known/oauth-protected-resource"
