"""Serves an app, and says on standard output when it is up."""

import os

import uvicorn


class Server(uvicorn.Server):
    def __init__(self, app, *words):
        super().__init__(uvicorn.Config(app, port=int(os.environ["PORT"]), log_level="warning"))
        self.words = words

    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("ready", *self.words, flush=True)


def serve(app, issuer, resource):
    Server(app, issuer, resource).run()
