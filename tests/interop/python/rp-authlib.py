"""A web application that signs people in with Authlib's Starlette client.

env: PORT, ISSUER, CLIENT_ID, CLIENT_SECRET; PKCE=1 (it sends none unless told).
"""

import os

from authlib.integrations.starlette_client import OAuth
from ready import serve
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route

HERE = f"http://127.0.0.1:{os.environ['PORT']}"
oauth = OAuth()
oauth.register(
    name="company",
    server_metadata_url=f"{os.environ['ISSUER']}/.well-known/openid-configuration",
    client_id=os.environ["CLIENT_ID"],
    client_secret=os.environ["CLIENT_SECRET"],
    client_kwargs={
        "scope": "openid email profile groups",
        **({"code_challenge_method": "S256"} if os.environ.get("PKCE") else {}),
    },
)


async def login(request):
    return await oauth.company.authorize_redirect(request, f"{HERE}/callback")


async def callback(request):
    token = await oauth.company.authorize_access_token(request)
    info = await oauth.company.userinfo(token=token)
    return JSONResponse({"claims": token["userinfo"], "info": info})


app = Starlette(
    routes=[Route("/", login), Route("/callback", callback)],
    middleware=[Middleware(SessionMiddleware, secret_key="of this run")],
)
serve(app, HERE, HERE)
