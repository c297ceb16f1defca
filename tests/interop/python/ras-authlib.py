"""A resource authorization server by Authlib's draft of ID-JAG (in Flask), and an MCP server.

env: PORT, IDP_ISSUER, CLIENT_ID, CLIENT_SECRET. Says `ready ISSUER RESOURCE` on standard output.
"""

import os
import time

import httpx
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.drafts.id_jag import IDJAGGrant
from authlib.oauth2.rfc6749 import ClientMixin
from fastmcp import FastMCP
from fastmcp.server.auth import AccessToken, RemoteAuthProvider, TokenVerifier
from fastmcp.server.dependencies import get_access_token
from flask import Flask, jsonify
from joserfc.jwk import KeySet
from pydantic import AnyHttpUrl
from ready import serve
from starlette.applications import Starlette
from starlette.middleware.wsgi import WSGIMiddleware
from starlette.routing import Mount

IDP = os.environ["IDP_ISSUER"]
ISSUER = f"http://localhost:{os.environ['PORT']}"
CLIENT_ID, CLIENT_SECRET = os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"]
seen, tokens = set(), {}


class Client(ClientMixin):
    def get_client_id(self):
        return CLIENT_ID

    def check_client_secret(self, client_secret):
        return client_secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method in ("client_secret_basic", "client_secret_post")

    def check_grant_type(self, grant_type):
        return grant_type == IDJAGGrant.GRANT_TYPE

    def get_allowed_scope(self, scope):
        return scope


class Grant(IDJAGGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post"]

    def get_audiences(self):
        return [ISSUER]

    def resolve_issuer_key(self, issuer, headers):
        if issuer != IDP:
            raise ValueError(issuer)
        return KeySet.import_key_set(httpx.get(f"{IDP}/jwks").json())

    def authenticate_user(self, subject):
        return subject

    def check_jti(self, claims, jti):
        first = jti not in seen
        seen.add(jti)
        return first

    def check_id_jag_permission(self, client, user, scopes):
        return self.request.id_jag_claims.get("resource") == f"{ISSUER}/mcp"


flask = Flask(__name__)
authorization = AuthorizationServer(
    flask,
    query_client=lambda client_id: Client() if client_id == CLIENT_ID else None,
    save_token=lambda token, request: tokens.update(
        {token["access_token"]: (token, request.user, time.time() + token["expires_in"])}
    ),
)
authorization.register_grant(Grant)


@flask.post("/token")
def token():
    return authorization.create_token_response()


@flask.get("/.well-known/oauth-authorization-server")
def metadata():
    return jsonify(
        issuer=ISSUER,
        token_endpoint=f"{ISSUER}/token",
        response_types_supported=[],
        grant_types_supported=[IDJAGGrant.GRANT_TYPE],
        token_endpoint_auth_methods_supported=Grant.TOKEN_ENDPOINT_AUTH_METHODS,
        authorization_grant_profiles_supported=["urn:ietf:params:oauth:grant-profile:id-jag"],
    )


@flask.get("/.well-known/oauth-protected-resource/mcp")
def resource():
    return jsonify(resource=f"{ISSUER}/mcp", authorization_servers=[ISSUER])


class Verifier(TokenVerifier):
    async def verify_token(self, token):
        known, user, until = tokens.get(token, (None, None, 0))
        if until < time.time():
            return None
        scopes = (known.get("scope") or "").split()
        return AccessToken(token=token, client_id=CLIENT_ID, scopes=scopes, subject=user)


server = FastMCP(
    "Authlib",
    auth=RemoteAuthProvider(
        Verifier(required_scopes=["read"]),
        authorization_servers=[AnyHttpUrl(ISSUER)],
        base_url=ISSUER,
    ),
)


@server.tool
def who() -> dict[str, object]:
    """Who calls"""
    token = get_access_token()
    return {"client": token.client_id, "scopes": token.scopes}


mcp = server.http_app()
app = Starlette(
    # FastMCP's own metadata write an issuer at the origin with a trailing slash, which is a
    # different issuer.
    routes=[
        *(route for route in mcp.routes if not route.path.startswith("/.well-known")),
        Mount("/", WSGIMiddleware(flask)),
    ],
    middleware=mcp.user_middleware,
    lifespan=mcp.lifespan,
)
serve(app, ISSUER, f"{ISSUER}/mcp")
