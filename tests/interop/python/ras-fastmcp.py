"""A resource authorization server and an MCP server, with PyPI `fastmcp`.

env: PORT, IDP_ISSUER, CLIENT_ID, CLIENT_SECRET (without it, FastMCP's own public client);
SCOPES ("read write"): the one every request needs, and the one `note_write` needs besides;
IDP_ALGORITHM (ES256): FastMCP takes exactly one.
The IdP has to be up at the first redemption. Says `ready ISSUER RESOURCE` on standard output.
"""

import json
import os
import secrets

from fastmcp import FastMCP
from fastmcp.server.auth import OAuthProxy
from fastmcp.server.auth.identity_assertion import JWT_BEARER_GRANT_TYPE, IdentityAssertion
from fastmcp.server.auth.middleware import RequireAuthMiddleware
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from fastmcp.server.dependencies import get_access_token
from key_value.aio.stores.memory import MemoryStore
from mcp.server.auth.routes import build_resource_metadata_url
from mcp.shared.auth import OAuthClientInformationFull
from ready import serve
from starlette.requests import Request

IDP = os.environ["IDP_ISSUER"]
# FastMCP writes an issuer at the origin with a trailing slash, in its metadata and in what it
# expects.
ISSUER = f"http://localhost:{os.environ['PORT']}/"
RESOURCE = f"{ISSUER}mcp"
READ, WRITE = os.environ.get("SCOPES", "read write").split()
CLIENT_ID, CLIENT_SECRET = os.environ["CLIENT_ID"], os.environ.get("CLIENT_SECRET")


class Auth(OAuthProxy):
    async def get_client(self, client_id):
        if client_id != CLIENT_ID or CLIENT_SECRET is None:
            return await super().get_client(client_id)
        return OAuthClientInformationFull(
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            token_endpoint_auth_method="client_secret_post",
            grant_types=[JWT_BEARER_GRANT_TYPE],
        )


auth = Auth(
    base_url=ISSUER,
    valid_scopes=[READ, WRITE],
    identity_assertion=IdentityAssertion(
        trusted_issuers=[IDP], algorithm=os.environ.get("IDP_ALGORITHM", "ES256")
    ),
    # For the interactive grant, which is not used here. A client with this id needs no
    # registration.
    upstream_authorization_endpoint=f"{IDP}/authorize",
    upstream_token_endpoint=f"{IDP}/token",
    upstream_client_id=CLIENT_ID,
    token_verifier=StaticTokenVerifier({}, required_scopes=[READ]),
    jwt_signing_key=secrets.token_bytes(32),
    client_storage=MemoryStore(),
)
server = FastMCP("FastMCP notes", auth=auth)
notes: dict[str, str] = {}


@server.tool
def note_read(title: str) -> dict[str, str | None]:
    """Read a note"""
    return {"text": notes.get(title), "subject": get_access_token().subject}


@server.tool
def note_write(title: str, text: str) -> dict[str, str]:
    """Write a note"""
    notes[title] = text
    return {"written": title, "subject": get_access_token().subject}


class WriteGate:
    """FastMCP challenges for the same scopes on every request; this for one more on one tool."""

    def __init__(self, app):
        self.app = app
        metadata = build_resource_metadata_url(RESOURCE)
        self.gate = RequireAuthMiddleware(app, [READ, WRITE], metadata)

    async def __call__(self, scope, receive, send):
        if scope["method"] != "POST":
            return await self.app(scope, receive, send)
        body = await Request(scope, receive).body()
        message = json.loads(body or "{}")
        writes = (
            isinstance(message, dict)
            and message.get("method") == "tools/call"
            and message["params"]["name"] == "note_write"
        )
        first = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay():
            return next(first, None) or await receive()

        await (self.gate if writes else self.app)(scope, replay, send)


app = server.http_app()
for route in app.routes:
    if route.path == "/mcp":
        route.app = WriteGate(route.app)

serve(app, ISSUER, RESOURCE)
