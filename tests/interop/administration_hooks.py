"""What no schema here says: whether a key is on its curve, and what one member asks of another one. Only what is written
as it should be is touched: what the fuzzer spoils stays spoiled."""

import schemathesis

# Public keys from RFC 7515 A.3, RFC 8037 A.2 and RFC 7638 3.1.
KEYS = [
    {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    },
    {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3o"
        "knjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
        "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqD"
        "Kgw",
        "e": "AQAB",
    },
]


def is_written_as_it_should_be(keys):
    def is_key(key):
        return isinstance(key, dict) and isinstance(key.get("kty"), str) and isinstance(key.get("kid"), str | type(None))

    return isinstance(keys, list) and 0 < len(keys) <= 100 and all(is_key(key) for key in keys)


@schemathesis.hook
def before_call(context, case, kwargs):
    # Every phase of the fuzzer comes by here, and only here.
    body = case.body
    if not isinstance(body, dict):
        return
    path = case.operation.path
    # An authorization server takes no public clients.
    if path == "/ras/{ras}/clients" and body.get("public") is True:
        body["public"] = False
    # All but the software that people enrol have an id at the authorization server.
    if path == "/idp/connections" and body.get("ras_client_id") is None:
        body["ras_client_id"] = "a-client"
    held = body.get("jwks")
    if isinstance(held, dict) and is_written_as_it_should_be(held.get("keys")):
        body["jwks"] = {"keys": KEYS}
