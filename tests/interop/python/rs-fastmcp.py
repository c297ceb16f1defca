"""An MCP server whose tokens FastMCP's JWT verifier checks, by its default RS256.

env: PORT, RAS_ISSUER.
"""

import os

from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider
from fastmcp.server.auth.providers.jwt import JWTVerifier
from fastmcp.server.dependencies import get_access_token
from pydantic import AnyHttpUrl
from ready import serve

RAS = os.environ["RAS_ISSUER"]
HERE = f"http://localhost:{os.environ['PORT']}"
verifier = JWTVerifier(
    jwks_uri=f"{RAS}/jwks", issuer=RAS, audience=f"{HERE}/mcp", required_scopes=["read"]
)
server = FastMCP(
    "JWT",
    auth=RemoteAuthProvider(verifier, authorization_servers=[AnyHttpUrl(RAS)], base_url=HERE),
)


@server.tool
def who() -> dict[str, object]:
    """Who calls"""
    token = get_access_token()
    return {"client": token.client_id, "scopes": token.scopes}


# Its own metadata write an issuer at the origin with a trailing slash.
serve(server.http_app(), RAS, f"{HERE}/mcp")
