//! `passavant tools`, `call`, `token`: using an MCP server.

use super::Common;
use anyhow::{Context, Result, bail};
use passavant_client::Settings;
use passavant_host as system;
use passavant_host::{plain, plain_lines};
use rmcp::{
    RoleClient, ServiceExt,
    model::{CallToolRequestParams, PaginatedRequestParams, Tool},
    service::{ClientInitializeError, Peer, RunningService, ServiceError},
};
use serde_json::Value;

/// A connection to an MCP server with this person's tokens.
async fn connect(common: &Common, url: &str) -> Result<RunningService<RoleClient, ()>> {
    let client = common.client_for(url).await?;
    let transport = client.transport_to(url)?;
    ().serve(transport).await.map_err(|error| own_words(&error))
}

/// The SDK's error about a failed start, in our own words.
pub fn own_words(error: &ClientInitializeError) -> anyhow::Error {
    let words = match error {
        ClientInitializeError::JsonRpcError(data) => {
            format!("the MCP server says: {}", plain(&data.message))
        }
        ClientInitializeError::ConnectionClosed(_) => {
            "the MCP server ended the connection before it had answered `initialize`".to_owned()
        }
        ClientInitializeError::NoCompatibleProtocolVersion { server_supported, .. } => {
            let theirs: Vec<String> = server_supported.iter().map(ToString::to_string).collect();
            let theirs = plain(&theirs.join(", "));
            format!(
                "the MCP server supports no protocol version that this program knows; its \
                 versions: {theirs}"
            )
        }
        ClientInitializeError::ExpectedInitResponse(_)
        | ClientInitializeError::ExpectedInitResult(_)
        | ClientInitializeError::ConflictInitResponseId(..)
        | ClientInitializeError::UncorrelatedErrorResponse { .. } => {
            "the MCP server's answer to `initialize` is not an initialize result".to_owned()
        }
        other => on_the_way(&innermost(other)),
    };
    anyhow::anyhow!("{words}")
}

/// The SDK wraps errors in several layers; the innermost one is ours or the server's.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// An error of the transport, without the names of the SDK's layers.
fn on_the_way(text: &str) -> String {
    let text = text.split_once("] error: ").map_or(text, |(_, inner)| inner);
    let text = text.split(", when ").next().unwrap_or(text);
    // The SDK adds a prefix to transport errors; the text after it is ours.
    if let Some((_, ours)) = text.split_once("Io error: ") {
        return ours.to_owned();
    }
    let text = text.trim_start_matches("Transport fatal ").trim_start_matches("Client error: ");
    if let Some((_, theirs)) = text.split_once("could not parse JSON response as ") {
        // The parser's error, followed by the beginning of the body.
        let body = theirs.split_once("JSON-RPC message: ").map(|(_, body)| body);
        let body = body.or_else(|| {
            let (_, place) = theirs.split_once(" column ")?;
            place.split_once(": ").map(|(_, body)| body)
        });
        let body = body.unwrap_or_default();
        if body.is_empty() || body == "<empty>" {
            return "the MCP server's answer is empty".to_owned();
        }
        return format!("the MCP server's answer is not a JSON-RPC message: {}", first_words(body));
    }
    if let Some(theirs) = text.strip_prefix("unexpected server response: ") {
        if let Some(said) = json_rpc_error(theirs) {
            return format!("the MCP server says: {said}");
        }
        return format!("the MCP server's answer is not an MCP message: {}", first_words(theirs));
    }
    if let Some(found) = text.strip_prefix("Unexpected content type: ") {
        let found =
            found.trim_start_matches("Some(").trim_end_matches(')').replace(['"', '\\'], "");
        let found = if found == "None" { "no media type".to_owned() } else { found };
        return format!(
            "the MCP server answered with {}, where JSON or an event stream was expected",
            plain(&found)
        );
    }
    // Our own error with a hint. It begins with the server's URL; text of other parties is on one
    // line of it.
    if text.starts_with("http") && text.contains("\nhint: ") {
        return text.to_owned();
    }
    if text.contains("channel closed") || text.contains("Transport closed") {
        return "the connection to the MCP server ended before it had answered".to_owned();
    }
    format!("the MCP server could not be asked: {}", first_words(text))
}

/// The message of a JSON-RPC error whose end may be cut off.
fn json_rpc_error(text: &str) -> Option<String> {
    let (_, body) = text.split_once('{')?;
    let (_, message) = body.split_once("\"message\":\"")?;
    let mut end = 0;
    let mut escaped = false;
    for byte in message.bytes() {
        match byte {
            b'"' if !escaped => break,
            _ => escaped = byte == b'\\' && !escaped,
        }
        end += 1;
    }
    let message: String = serde_json::from_str(&format!("\"{}\"", &message[..end])).ok()?;
    Some(plain(&message.chars().take(500).collect::<String>()))
}

/// The beginning of another party's text; of an HTML page only that it is one.
fn first_words(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    if ["<!doctype", "<html", "<head", "<body"].iter().any(|tag| lower.contains(tag)) {
        let status = text.split(": ").next().filter(|status| status.starts_with("HTTP "));
        let status = status.map(|status| format!("{}, with", plain(status))).unwrap_or_default();
        return format!("{status} a web page (HTML)").trim().to_owned();
    }
    let line = text.lines().next().unwrap_or_default();
    plain(&line.chars().take(300).collect::<String>())
}

/// Maximum number of tools of one server, of pages to read, and of bytes in total.
const MOST: usize = 1000;
const PAGES: usize = 64;
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The tools of a server, page by page, up to the maximum.
pub async fn tools_of(peer: &Peer<RoleClient>) -> Result<Vec<Tool>> {
    let (mut tools, mut bytes) = (Vec::new(), 0);
    let mut page = None;
    for _ in 0..PAGES {
        let asked =
            page.take().map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
        let listed = peer.list_tools(asked).await.map_err(|error| readable(&error))?;
        for tool in listed.tools {
            bytes += serde_json::to_string(&tool).map_or(0, |text| text.len());
            if tools.len() == MOST || bytes > MOST_BYTES {
                return Ok(tools);
            }
            tools.push(tool);
        }
        match listed.next_cursor {
            Some(cursor) => page = Some(cursor),
            None => break,
        }
    }
    Ok(tools)
}

pub async fn tools(common: &Common, url: &str, as_json: bool) -> Result<()> {
    let service = connect(common, url).await?;
    let tools = tools_of(service.peer()).await;
    // Also after an error, because the server may keep a process for the session.
    service.cancel().await?;
    let tools = tools?;
    if as_json {
        println!("{}", system::json_text(&tools)?);
    } else {
        for tool in &tools {
            let text = tool.description.as_deref().unwrap_or_default();
            println!("{:<20} {}", plain(&tool.name), plain(text));
        }
    }
    Ok(())
}

pub async fn call(common: &Common, url: &str, tool: &str, arguments: &str) -> Result<()> {
    let arguments: Value = serde_json::from_str(arguments)
        .context("the arguments are not JSON\nhint: for instance '{\"title\": \"plan\"}'")?;
    let Value::Object(arguments) = arguments else {
        bail!("the arguments are not a JSON object\nhint: for instance '{{\"title\": \"plan\"}}'");
    };
    let service = connect(common, url).await?;
    let request = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
    let result = service.call_tool(request).await;
    service.cancel().await?;
    let result = match result {
        Ok(result) => result,
        Err(error) => {
            let error = readable(&error);
            // More scopes were requested meanwhile: the catalog knows why they are refused, and
            // says it in words for people.
            if error.to_string().contains("access_denied") {
                let (client, _) = common.signed_in()?;
                if let Some(text) = client.refusal(url).await {
                    bail!("{text}");
                }
            }
            return Err(error);
        }
    };
    match &result.structured_content {
        Some(content) => println!("{}", system::json_text(content)?),
        None => {
            for content in &result.content {
                match content.as_text() {
                    Some(text) => println!("{}", plain_lines(&text.text)),
                    None => println!("{}", system::json_text(&content)?),
                }
            }
        }
    }
    if result.is_error == Some(true) {
        bail!("the tool returned an error");
    }
    Ok(())
}

pub fn readable(error: &ServiceError) -> anyhow::Error {
    let words = match error {
        ServiceError::McpError(data) => {
            let hint = if data.message.to_lowercase().contains("tool") {
                "\nhint: `passavant tools URL` lists those that it has for you"
            } else {
                ""
            };
            format!("the MCP server says: {}{hint}", plain(&data.message))
        }
        ServiceError::UnexpectedResponse => {
            "the MCP server's answer is not the result of the request that was sent".to_owned()
        }
        other => on_the_way(&innermost(other)),
    };
    anyhow::anyhow!("{words}")
}

/// Prints an access token, for use in a shell pipeline: a bearer token, since other programs do not
/// have the key that a bound one needs. It is not kept.
pub async fn token(common: &Common, url: &str, scope: Option<&str>) -> Result<()> {
    let client = common.client_for(url).await?;
    let held = client.access(url).await?;
    if scope.is_none() && held.dpop_jkt.is_none() {
        println!("{}", held.token);
        return Ok(());
    }
    if held.consent.is_some() && held.dpop_jkt.is_some() {
        eprintln!(
            "warning: this token is bound to this computer's key (DPoP): other programs cannot use it"
        );
        println!("{}", held.token);
        return Ok(());
    }
    let settings = Settings { dpop_key: None, ..client.settings().clone() };
    let client = common.client_with(&common.storage()?, settings)?;
    // The company's authorization servers need not announce cross-app access.
    let _ = client.catalog().await;
    let mut server = client.discover(url).await?;
    if scope.is_none() && !held.scopes.is_empty() {
        // Scopes that were granted in a step-up are kept.
        server.scopes = Some(held.scopes.clone());
    }
    if let Some(scope) = scope {
        let scopes = passavant_proto::oauth::scope::Scopes::parse(scope);
        server.scopes =
            Some(scopes.context("--scope contains a character that is not allowed in a scope")?);
    }
    // The token in memory may have other scopes.
    client.forget(&server);
    println!("{}", client.access_token(&server).await?.secret().expose());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::transport::StreamableHttpClientTransport;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The error message that a person sees if a server gives this response to every request.
    async fn told(answer: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let transport = StreamableHttpClientTransport::from_uri(url);
        let Err(error) = ().serve(transport).await else { panic!("it started") };
        own_words(&error).to_string()
    }

    macro_rules! answer {
        ($status:literal, $kind:literal, $body:literal) => {
            concat!("HTTP/1.1 ", $status, "\r\nconnection: close\r\n", $kind, "\r\n", $body)
        };
    }

    #[tokio::test]
    async fn what_a_server_answers_wrongly_is_said_without_names_of_the_sdk() {
        let answers = [
            answer!("200 OK", "content-type: text/html\r\n", "<!doctype html><p>Sign in"),
            answer!("200 OK", "content-type: application/json\r\n", "{}"),
            answer!(
                "200 OK",
                "content-type: application/json\r\n",
                "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}"
            ),
            answer!(
                "200 OK",
                "content-type: application/json\r\n",
                "{\"jsonrpc\":\"2.0\",\"id\":0,\"error\":{\"code\":-32000,\"message\":\"closed\\u001b[2J today\"}}"
            ),
            answer!("200 OK", "content-type: application/json\r\n", "not JSON"),
            answer!("200 OK", "content-type: application/json\r\n", ""),
            answer!("200 OK", "", "{}"),
            answer!("200 OK", "content-type: text/event-stream\r\n", ""),
            answer!("202 Accepted", "", ""),
            answer!("400 Bad Request", "content-type: text/plain\r\n", "no \u{1b}[31mversion"),
            answer!(
                "403 Forbidden",
                "content-type: application/json\r\n",
                "{\"jsonrpc\":\"2.0\",\"id\":0,\"error\":{\"code\":-32001,\"message\":\"No \\\"rule\\\" allows this\"}}"
            ),
            answer!(
                "403 Forbidden",
                "content-type: text/html\r\n",
                "<html><body>Blocked</body></html>"
            ),
            answer!("404 Not Found", "content-type: text/html\r\n", "<html><title>nothing</title>"),
            answer!("502 Bad Gateway", "content-type: text/html\r\n", "<html><h1>502</h1></html>"),
            "not HTTP at all\r\n\r\n",
            "",
        ];
        for answer in answers {
            let words = told(answer).await;
            println!("{words}");
            for rust in [
                "::",
                "Some(",
                "None",
                "rmcp",
                "reqwest",
                "Transport",
                "Error {",
                "Send message",
                "hyper",
                "serde",
                "<html",
                "<!doctype",
                "\u{1b}",
                "Unexpected",
                "EOF while",
            ] {
                assert!(!words.contains(rust), "{answer}\n{words}");
            }
            assert!(words.contains("the MCP server"), "{words}");
        }
    }
}
