# Cross-App Access end to end with PyPI `mcp` 2.3.0, IdentityAssertionOAuthProvider. Python >= 3.11.
# env: IDP_ISSUER IDP_CLIENT_ID [IDP_CLIENT_SECRET] ID_TOKEN RAS_ISSUER RAS_CLIENT_ID RAS_CLIENT_SECRET
#  MCP_URL [TOOL] [TOOL_ARGS=json]
#  SCOPE (first asked of the RAS, as set at the provider; the SDK adds what a 403 asks for)
#  JAG_SCOPE (asked of the IdP: the SDK does not tell its assertion callback what a challenge asks for)
#  PROTOCOL=legacy|auto|2026-07-28   RAS_AUTH=client_secret_post|client_secret_basic
#  TRACE=1 (one JSON line per HTTP request on stderr)
import asyncio
import base64
import json
import os
import sys
from importlib.metadata import version

import httpx2
from mcp import Client
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client

E = os.environ
report = {"ok": False, "version": version("mcp"), "scopes": [], "jags": [], "steps": []}


class Storage:
    """Keeps the token, and the scope of each token that came."""

    tokens = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens
        report["scopes"].append(tokens.scope)

    async def get_client_info(self):
        return None

    async def set_client_info(self, client_info):
        pass


async def trace(response):
    request = response.request
    report["steps"].append(f"{request.method} {request.url} {response.status_code}")
    if E.get("TRACE"):
        line = {
            "method": request.method,
            "url": str(request.url),
            "headers": dict(request.headers),
            "body": (await request.aread()).decode(),
            "status": response.status_code,
            "wwwAuthenticate": response.headers.get("www-authenticate"),
        }
        print(json.dumps(line), file=sys.stderr)


def http(**more):
    return httpx2.AsyncClient(event_hooks={"response": [trace]}, trust_env=False, **more)


async def id_jag(audience, resource):
    """The first leg, which the SDK leaves to its caller: ID token to ID-JAG."""
    async with http() as client:
        found = await client.get(E["IDP_ISSUER"] + "/.well-known/openid-configuration")
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "subject_token": E["ID_TOKEN"],
            "audience": audience,
            "resource": resource,
            "scope": E.get("JAG_SCOPE"),
            "client_id": E["IDP_CLIENT_ID"],
            "client_secret": E.get("IDP_CLIENT_SECRET"),
        }
        form = {name: value for name, value in form.items() if value}
        answer = await client.post(found.json()["token_endpoint"], data=form)
        if answer.status_code != 200:
            raise RuntimeError(f"token exchange: {answer.status_code} {answer.text}")
        jag = answer.json()["access_token"]
        claims = jag.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        report["jags"].append({name: claims.get(name) for name in ("aud", "resource", "scope", "client_id")})
        return jag


async def main():
    provider = IdentityAssertionOAuthProvider(
        server_url=E["MCP_URL"],
        storage=Storage(),
        client_id=E["RAS_CLIENT_ID"],
        client_secret=E["RAS_CLIENT_SECRET"],
        issuer=E["RAS_ISSUER"],
        assertion_provider=id_jag,
        scope=E.get("SCOPE"),
        token_endpoint_auth_method=E.get("RAS_AUTH", "client_secret_post"),
    )
    async with http(auth=provider, timeout=30) as http_client:
        transport = streamable_http_client(E["MCP_URL"], http_client=http_client)
        async with Client(transport, mode=E.get("PROTOCOL", "legacy")) as client:
            report["protocol"] = client.session.protocol_version
            report["tools"] = [tool.name for tool in (await client.list_tools()).tools]
            if tool := E.get("TOOL"):
                result = await client.call_tool(tool, json.loads(E.get("TOOL_ARGS", "{}")))
                report["result"] = result.structured_content
                if result.is_error:
                    raise RuntimeError(f"{tool}: {result.content}")
    report["ok"] = True


def causes(error):
    """Task groups wrap what went wrong."""
    if isinstance(error, BaseExceptionGroup):
        return [text for inner in error.exceptions for text in causes(inner)]
    return [f"{type(error).__name__}: {error}"]


try:
    asyncio.run(main())
except BaseException as error:
    report["error"] = causes(error)
print(json.dumps(report))
sys.exit(0 if report["ok"] else 1)
