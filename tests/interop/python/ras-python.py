"""A resource authorization server and an MCP server, with the server side of PyPI `mcp`.

env: PORT, IDP_ISSUER, CLIENT_ID, CLIENT_SECRET;
SCOPES ("read write"): the one every request needs, and the one `note_write` needs besides;
AUTH_METHOD (client_secret_post): the one the client is registered with, or client_secret_basic;
LIST_ONLY_THAT=1: the metadata lists AUTH_METHOD alone, instead of both as the SDK does.
The IdP has to be up. Says `ready ISSUER RESOURCE` on standard output.
"""

import json
import os
import secrets
import time
from urllib.request import urlopen

import jwt
import mcp.server.auth.routes as sdk_routes
from anyio import to_thread
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, OAuthAuthorizationServerProvider, TokenError
from mcp.server.auth.settings import AuthSettings
from mcp.shared.auth import JWT_BEARER_GRANT_TYPE, OAuthClientInformationFull, OAuthToken
from ready import serve
from starlette.requests import Request
from starlette.responses import Response

IDP = os.environ["IDP_ISSUER"]
ISSUER = f"http://localhost:{os.environ['PORT']}"
RESOURCE = f"{ISSUER}/mcp"
READ, WRITE = os.environ.get("SCOPES", "read write").split()
LIFETIME = 300

CLIENT = OAuthClientInformationFull(
    client_id=os.environ["CLIENT_ID"],
    client_secret=os.environ["CLIENT_SECRET"],
    token_endpoint_auth_method=os.environ.get("AUTH_METHOD", "client_secret_post"),
    grant_types=[JWT_BEARER_GRANT_TYPE],
)

with urlopen(f"{IDP}/.well-known/openid-configuration") as answer:
    KEYS = jwt.PyJWKClient(json.load(answer)["jwks_uri"])


class Provider(OAuthAuthorizationServerProvider):
    """The SDK authenticates the client; all else about an ID-JAG is the provider's."""

    def __init__(self):
        self.tokens: dict[str, AccessToken] = {}
        self.redeemed: dict[str, int] = {}

    async def get_client(self, client_id):
        return CLIENT if client_id == CLIENT.client_id else None

    async def load_access_token(self, token):
        return self.tokens.get(token)

    async def exchange_identity_assertion(self, client, params):
        claims = await to_thread.run_sync(verified, params.assertion)
        if claims["client_id"] != client.client_id:
            raise TokenError("invalid_grant", "the assertion is another client's")
        named = claims.get("resource", RESOURCE)
        if RESOURCE not in ([named] if isinstance(named, str) else named):
            raise TokenError("invalid_grant", "the assertion is for another resource")
        if params.resource not in (None, RESOURCE):
            raise TokenError("invalid_target", "no such resource here")
        now = int(time.time())
        self.redeemed = {jti: exp for jti, exp in self.redeemed.items() if exp > now}
        if claims["jti"] in self.redeemed:
            raise TokenError("invalid_grant", "the assertion was used before")
        self.redeemed[claims["jti"]] = claims["exp"]
        carried = claims.get("scope", "").split()
        granted = [s for s in (READ, WRITE) if s in carried and s in (params.scopes or carried)]
        if not granted:
            raise TokenError("invalid_scope", "none of the scopes can be granted")
        token = secrets.token_urlsafe()
        self.tokens[token] = AccessToken(
            token=token,
            client_id=client.client_id,
            scopes=granted,
            expires_at=now + LIFETIME,
            resource=RESOURCE,
            subject=claims["sub"],
            claims={"iss": claims["iss"]},
        )
        return OAuthToken(access_token=token, expires_in=LIFETIME, scope=" ".join(granted))


def verified(assertion: str) -> dict:
    try:
        decoded = jwt.decode_complete(
            assertion,
            KEYS.get_signing_key_from_jwt(assertion),
            algorithms=["ES256", "EdDSA", "PS256", "RS256"],
            issuer=IDP,
            audience=ISSUER,
            options={
                "require": ["iss", "sub", "aud", "client_id", "jti", "exp", "iat"],
                "strict_aud": True,
            },
        )
    except jwt.PyJWTError as error:
        raise TokenError("invalid_grant", str(error)) from error
    if decoded["header"].get("typ") != "oauth-id-jag+jwt":
        raise TokenError("invalid_grant", "the assertion is not an ID-JAG")
    return decoded["payload"]


class WriteGate:
    """The SDK asks for the same scopes on every request; this asks for one more for one tool."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["method"] != "POST":
            return await self.app(scope, receive, send)
        body = await Request(scope, receive).body()
        message = json.loads(body or "{}")
        token = get_access_token()
        if (
            isinstance(message, dict)
            and message.get("method") == "tools/call"
            and message["params"]["name"] == "note_write"
            and token is not None
            and WRITE not in token.scopes
        ):
            challenge = (
                f'Bearer error="insufficient_scope", scope="{READ} {WRITE}", '
                f'resource_metadata="{sdk_routes.build_resource_metadata_url(RESOURCE)}"'
            )
            refusal = Response(status_code=403, headers={"www-authenticate": challenge})
            return await refusal(scope, receive, send)
        first = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay():
            return next(first, None) or await receive()

        await self.app(scope, replay, send)


if os.environ.get("LIST_ONLY_THAT"):
    build_metadata = sdk_routes.build_metadata

    def listing_one_method(*args, **named):
        metadata = build_metadata(*args, **named)
        metadata.token_endpoint_auth_methods_supported = [CLIENT.token_endpoint_auth_method]
        return metadata

    sdk_routes.build_metadata = listing_one_method

server = MCPServer(
    "Python notes",
    auth_server_provider=Provider(),
    auth=AuthSettings(
        issuer_url=ISSUER,
        resource_server_url=RESOURCE,
        required_scopes=[READ],
        identity_assertion_enabled=True,
        validate_token_resource=True,
    ),
    log_level="WARNING",
)
notes: dict[str, str] = {}


@server.tool()
def note_read(title: str) -> dict[str, str | None]:
    """Read a note"""
    return {"text": notes.get(title), "subject": get_access_token().subject}


@server.tool()
def note_write(title: str, text: str) -> dict[str, str]:
    """Write a note"""
    notes[title] = text
    return {"written": title, "subject": get_access_token().subject}


app = server.streamable_http_app()
for route in app.routes:
    if route.path == "/mcp":
        route.app = WriteGate(route.app)

serve(app, ISSUER, RESOURCE)
