//! Quirks of third-party authorization servers and MCP servers: `doctor` and the bridge take the
//! same steps, and have the same result.

use crate::client_library::sign_in;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, Response},
};
use passavant_client::{Registration, bridge::Bridge};
use passavant_proto::{
    identifier::{Issuer, Resource},
    policy::RegisteredResource,
};
use passavant_tests::world::{AGENT, World};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};

/// A vendor with authorization server and MCP server at one origin, and with one quirk.
#[derive(Clone)]
struct Vendor {
    url: String,
    quirk: &'static str,
}

fn answer(status: u16, kind: &str, body: impl Into<Body>) -> Response<Body> {
    let builder = Response::builder().status(status).header("content-type", kind);
    builder.body(body.into()).unwrap()
}

fn json_of(status: u16, body: &Value) -> Response<Body> {
    answer(status, "application/json", body.to_string())
}

/// Its metadata are at the root and name the origin, as a widely used library writes them.
const OF_THE_ORIGIN: &str = "metadata of the origin";

const PAGE: &str = "<!doctype html><html><body>Please sign in</body></html>";

impl Vendor {
    fn respond(&self, method: &Method, path: &str, token: bool, body: &str) -> Response<Body> {
        let (url, quirk) = (&self.url, self.quirk);
        match (method.as_str(), path) {
            ("GET", "/.well-known/oauth-protected-resource/mcp") => {
                if quirk == "a page instead of resource metadata" {
                    return answer(200, "text/html", PAGE);
                }
                let slash = if quirk == "an origin with a slash as issuer" { "/" } else { "" };
                json_of(
                    200,
                    &json!({"resource": format!("{url}/mcp"),
                    "authorization_servers": [format!("{url}{slash}")], "scopes_supported": ["read"]}),
                )
            }
            ("GET", "/.well-known/oauth-protected-resource") if quirk == OF_THE_ORIGIN => json_of(
                200,
                &json!({"resource": url, "authorization_servers": [url], "scopes_supported": ["read"]}),
            ),
            (
                "GET",
                "/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration",
            ) => {
                if quirk == "a page at the place that is tried first" && path.ends_with("server") {
                    return answer(200, "text/html", PAGE);
                }
                if quirk == "metadata that nobody may read" {
                    return json_of(
                        421,
                        &json!({"error": {"message": "not for you: let the proxy pass on Host"}}),
                    );
                }
                if quirk == "metadata that are not there just now" {
                    return answer(503, "text/plain", "down for maintenance");
                }
                json_of(
                    200,
                    &json!({"issuer": url, "token_endpoint": format!("{url}/token"),
                    "authorization_grant_profiles_supported": ["urn:ietf:params:oauth:grant-profile:id-jag"]}),
                )
            }
            ("POST", "/token") => self.token(body),
            ("POST", "/mcp") if token => self.call(body),
            ("POST" | "GET", "/mcp") if quirk == "a redirect before the token" => {
                let mut moved = answer(307, "text/plain", "");
                moved.headers_mut().insert("location", "/mcp/".parse().unwrap());
                moved
            }
            ("POST" | "GET", "/mcp") => {
                let mut refused = answer(401, "application/json", "{}");
                let named = format!(
                    "Bearer resource_metadata=\"{url}/.well-known/oauth-protected-resource/mcp\""
                );
                let of_origin = named.trim_end_matches("/mcp\"").to_owned() + "\"";
                let named = match quirk {
                    "a challenge that names nothing" => "Bearer",
                    OF_THE_ORIGIN => &of_origin,
                    _ => &named,
                };
                refused.headers_mut().insert("www-authenticate", named.parse().unwrap());
                refused
            }
            _ => answer(404, "text/plain", "nothing"),
        }
    }

    fn token(&self, body: &str) -> Response<Body> {
        let mut token = json!({"access_token": "a-token", "token_type": "Bearer", "expires_in": 300, "scope": "read"});
        match self.quirk {
            "resource is refused" if body.contains("&resource=") => {
                return json_of(
                    400,
                    &json!({"error": "invalid_request", "error_description": "unknown parameter"}),
                );
            }
            "the grant is refused" => {
                return json_of(
                    400,
                    &json!({"error": "invalid_grant", "error_description": "no such user"}),
                );
            }
            "a page instead of a token" => return answer(200, "text/html", PAGE),
            "a gateway's error instead of a token" => return answer(502, "text/html", PAGE),
            "a lifetime as text" => token["expires_in"] = json!("300"),
            "a type in small letters" => token["token_type"] = json!("bearer"),
            "a type that needs a key" => token["token_type"] = json!("DPoP"),
            _ => {}
        }
        json_of(200, &token)
    }

    fn call(&self, body: &str) -> Response<Body> {
        let message: Value = serde_json::from_str(body).unwrap_or_default();
        if message.get("id").is_none() {
            return answer(202, "text/plain", "");
        }
        let result = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}}, "serverInfo": {"name": "vendor", "version": "1"}, "tools": []}});
        match self.quirk {
            "events, and one without data first" => {
                let text =
                    format!("id: 0\nretry: 3000\ndata:\n\nevent: message\ndata: {result}\n\n");
                answer(200, "text/event-stream", text)
            }
            "something said before the answer" => {
                let said = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}});
                answer(200, "text/event-stream", format!("data: {said}\n\ndata: {result}\n\n"))
            }
            "a token that is never enough" => {
                let mut refused = answer(401, "application/json", "{}");
                let why = "Bearer error=\"invalid_token\", error_description=\"wrong audience\"";
                refused.headers_mut().insert("www-authenticate", why.parse().unwrap());
                refused
            }
            "forbidden in plain words" => answer(403, "text/plain", "Host is not allowed here"),
            "a redirect" => {
                let mut moved = answer(302, "text/plain", "");
                moved.headers_mut().insert("location", "/elsewhere".parse().unwrap());
                moved
            }
            "a page instead of an answer" => answer(200, "text/html", PAGE),
            "an encoding that nobody asked for" => {
                // Looks like brotli: not text.
                let mut coded = answer(200, "application/json", &b"\x8b\x05\x80{}\x03"[..]);
                coded.headers_mut().insert("content-encoding", "br".parse().unwrap());
                coded
            }
            "an error of the server" => answer(500, "text/plain", "oh no"),
            "an error in JSON-RPC" => json_of(
                200,
                &json!({"jsonrpc": "2.0", "id": message["id"],
                "error": {"code": -32000, "message": "closed today"}}),
            ),
            _ => json_of(200, &result),
        }
    }
}

async fn vendor(State(vendor): State<Vendor>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let token = parts.headers.get("authorization").is_some_and(|v| v == "Bearer a-token");
    vendor.respond(&parts.method, parts.uri.path(), token, &String::from_utf8_lossy(&body))
}

/// The bridge's response to `initialize`, as an agent sees it.
async fn bridged(client: passavant_client::Client, url: &str) -> Value {
    let (mut input, read) = tokio::io::duplex(1 << 16);
    let (write, output) = tokio::io::duplex(1 << 16);
    let url = url.to_owned();
    let bridge = tokio::spawn(async move {
        Bridge::run(client, &url, read, write, std::future::pending()).await.unwrap();
    });
    let begin = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    input.write_all(format!("{begin}\n").as_bytes()).await.unwrap();
    let mut lines = BufReader::new(output).lines();
    let answer = loop {
        let line = timeout(Duration::from_secs(20), lines.next_line()).await.expect("no answer");
        let line: Value = serde_json::from_str(&line.unwrap().unwrap()).unwrap();
        if line.get("id").is_some() {
            break line;
        }
    };
    bridge.abort();
    answer
}

#[tokio::test]
async fn doctor_and_the_bridge_come_to_the_same_end_with_every_quirk() {
    let world = World::new().await;
    for (quirk, works) in [
        ("none", true),
        ("an origin with a slash as issuer", true),
        ("a challenge that names nothing", true),
        ("a lifetime as text", true),
        ("a type in small letters", true),
        ("resource is refused", true),
        ("events, and one without data first", true),
        ("something said before the answer", true),
        (OF_THE_ORIGIN, true),
        ("a page at the place that is tried first", true),
        ("a redirect before the token", false),
        ("an encoding that nobody asked for", false),
        ("a page instead of resource metadata", false),
        ("metadata that are not there just now", false),
        ("metadata that nobody may read", false),
        ("the grant is refused", false),
        ("a page instead of a token", false),
        ("a gateway's error instead of a token", false),
        ("a type that needs a key", false),
        ("a token that is never enough", false),
        ("forbidden in plain words", false),
        ("a redirect", false),
        ("a page instead of an answer", false),
        ("an error of the server", false),
        ("an error in JSON-RPC", false),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(vendor).with_state(Vendor { url: url.clone(), quirk });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let (issuer, mcp) = (Issuer::parse(&url).unwrap(), format!("{url}/mcp"));
        let own = if quirk == OF_THE_ORIGIN { &url } else { &mcp };
        let body = json!({"issuer": url, "name": "Vendor"});
        let reply = world.administer(Method::POST, "/idp/authorization-servers", Some(body)).await;
        assert!(reply.status < 300, "{}", reply.text);
        let resource = RegisteredResource {
            resource: Resource::parse(own).unwrap(),
            authorization_server: issuer.clone(),
            name: "Vendor".to_owned(),
            scopes: ["read"].into_iter().collect(),
            disabled: false,
        };
        world.put(&world.idp_store, &resource).await;
        let mut connection = world.connection(AGENT, "agent-there");
        connection.id = url.replace([':', '/', '.'], "-");
        connection.audience = issuer;
        connection.resources = vec![Resource::parse(own).unwrap()];
        connection.scopes = ["read"].into_iter().collect();
        world.put(&world.idp_store, &connection).await;
        let mut settings = world.client_settings();
        let there = Registration::with_secret("agent-there", world.secret.clone());
        settings.ras_clients.insert(url.clone(), there);
        let client = world.client_with(settings);
        sign_in(&world, &client, "erin").await;

        let report = client.examine(&mcp).await;
        let answer = bridged(client, &mcp).await;
        assert_eq!(report.works, works, "{quirk}: doctor: {}", report.verdict);
        assert_eq!(answer.get("result").is_some(), works, "{quirk}: bridge: {answer}");
        if works {
            continue;
        }
        // Both describe the problem in words for people.
        let told = answer["error"]["message"].as_str().unwrap();
        for text in [told, report.verdict.as_str()] {
            assert!(text.len() > 20 || quirk == "an error in JSON-RPC", "{quirk}: {text}");
            for raw in ["<html", "<!doctype", "rmcp::", "Error {", "Some("] {
                assert!(!text.contains(raw), "{quirk}: {text}");
            }
        }
        assert!(report.verdict.contains("To be changed by"), "{quirk}: {}", report.verdict);
        if quirk == "metadata that nobody may read" {
            assert!(
                told.contains("not for you") && report.verdict.contains("not for you"),
                "{told}"
            );
        }
    }
}
