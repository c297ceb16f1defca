//! Compares headers with the body. The body decides; headers that repeat it have to agree with it
//! (MCP 2026-07-28, Streamable HTTP), in either era, so that whoever routes by headers sees the
//! same request.

use crate::snapshots::Snapshots;
use http::{HeaderMap, HeaderName};
use passavant_proto::{
    mcp::headers::decoded,
    mcp::message::{
        BATCHES, Body, HEADER_MISMATCH, INVALID_REQUEST, Kind, Message, REVISIONS, STATELESS,
        UNSUPPORTED_VERSION,
    },
};
use serde_json::{Value, json};

pub(crate) const VERSION: &str = "mcp-protocol-version";
pub(crate) const SESSION: &str = "mcp-session-id";
pub(crate) const LAST_EVENT: &str = "last-event-id";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
const PARAMETER: &str = "mcp-param-";

/// Why a request is rejected here: a JSON-RPC error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: i64,
    pub(crate) text: String,
    pub(crate) data: Option<Value>,
}

fn mismatch(text: String) -> Fault {
    Fault { code: HEADER_MISMATCH, text, data: None }
}

/// The value of a header that may occur once at most.
pub(crate) fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let text = text.ok_or_else(|| Fault {
        code: INVALID_REQUEST,
        text: format!("The header {name} occurs twice, or is not ASCII."),
        data: None,
    })?;
    Ok(Some(text.trim()))
}

/// Whether a request may be a batch, judged by its version header alone.
pub(crate) fn has_batches(headers: &HeaderMap) -> Result<bool, Fault> {
    Ok(only(headers, VERSION)?.is_none_or(|version| version == BATCHES))
}

/// The version of a request without a body.
pub(crate) fn check_version(headers: &HeaderMap) -> Result<(), Fault> {
    match only(headers, VERSION)? {
        Some(version) if !REVISIONS.contains(&version) => Err(unsupported(version)),
        _ => Ok(()),
    }
}

fn unsupported(version: &str) -> Fault {
    Fault {
        code: UNSUPPORTED_VERSION,
        text: "Unsupported protocol version".to_owned(),
        data: Some(json!({"supported": REVISIONS, "requested": version})),
    }
}

/// The result of comparing headers and body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The request belongs to the stateless era.
    pub(crate) stateless: bool,
    /// The `Mcp-Param-…` headers that repeat an argument. Headers that no known schema marks are
    /// not forwarded: without a comparison they would be the caller's unchecked claim.
    pub(crate) parameters: Vec<HeaderName>,
}

/// Compares headers with the body.
pub(crate) fn check(
    headers: &HeaderMap,
    body: &Body<'_>,
    tools: &Snapshots,
) -> Result<Agreed, Fault> {
    let version = only(headers, VERSION)?;
    let (method, name) = (only(headers, METHOD)?, only(headers, NAME)?);
    let [message] = body.messages.as_slice() else {
        // One header cannot repeat a batch.
        return match (method, name) {
            (None, None) => Ok(Agreed::default()),
            _ => Err(mismatch("A batch has no Mcp-Method and no Mcp-Name.".to_owned())),
        };
    };
    let stateless = match (version, message.version.as_deref()) {
        (Some(header), Some(meta)) if header != meta => {
            return Err(mismatch(format!(
                "The header MCP-Protocol-Version says `{header}`, the body's _meta says `{meta}`."
            )));
        }
        (None, Some(meta)) => {
            return Err(mismatch(format!(
                "The body's _meta says `{meta}`, but there is no header MCP-Protocol-Version."
            )));
        }
        // Both name the same version. If it is unknown here, the MCP server is the one to reject
        // it.
        (Some(_), Some(_)) => true,
        (Some(header), None) if !REVISIONS.contains(&header) => return Err(unsupported(header)),
        (header, None) => header == Some(STATELESS),
    };
    check_names(message, (method, name), stateless)?;
    let parameters = check_parameters(headers, message, tools, stateless)?;
    Ok(Agreed { stateless, parameters })
}

fn check_names(
    message: &Message<'_>,
    (method, name): (Option<&str>, Option<&str>),
    stateless: bool,
) -> Result<(), Fault> {
    let names_itself = message.kind != Kind::Response;
    match method {
        Some(header) if header != message.method => {
            return Err(mismatch(format!(
                "The header Mcp-Method says `{header}`, the body says `{}`.",
                message.method
            )));
        }
        None if stateless && names_itself => {
            return Err(mismatch("The header Mcp-Method is missing.".to_owned()));
        }
        _ => {}
    }
    let inside = message.header_name();
    match name {
        Some(header) if decoded(header).as_deref() != Some(inside.unwrap_or_default()) => {
            Err(mismatch("The header Mcp-Name says something else than the body.".to_owned()))
        }
        None if stateless && inside.is_some() => {
            Err(mismatch("The header Mcp-Name is missing.".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Compares the arguments that the tool's schema marks. No decision rests on them, so the check of
/// a tool that was not listed yet is left to the MCP server.
fn check_parameters(
    headers: &HeaderMap,
    message: &Message<'_>,
    tools: &Snapshots,
    stateless: bool,
) -> Result<Vec<HeaderName>, Fault> {
    let mut agreed = Vec::new();
    let some = headers.keys().any(|name| name.as_str().starts_with(PARAMETER));
    if message.method != "tools/call" || !(some || stateless) {
        return Ok(agreed);
    }
    let Some(marked) = message.name.as_deref().and_then(|name| tools.marked(name)) else {
        return Ok(agreed);
    };
    for marked in marked.iter() {
        let name = format!("{PARAMETER}{}", marked.header.to_ascii_lowercase());
        let header = only(headers, &name)?.map(decoded);
        let inside = message.arguments.and_then(|arguments| marked.value(arguments));
        let agrees = match (header, &inside) {
            (None, None) => true,
            (None, Some(_)) => !stateless,
            (Some(header), inside) => header.is_some() && header == *inside,
        };
        if !agrees {
            return Err(mismatch(format!(
                "The header Mcp-Param-{} says something else than the body.",
                marked.header
            )));
        }
        // Some readers take an underscore for a hyphen and would find two headers of one name.
        agreed.extend(
            HeaderName::try_from(&name).ok().filter(|_| inside.is_some() && !name.contains('_')),
        );
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use passavant_proto::mcp::message;

    const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"region":"eu"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    const OLD: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}"#;

    fn judge(body: &str, headers: &[(&str, &str)]) -> Result<bool, i64> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let tools = Snapshots::default();
        let schema = json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"}}});
        let tool = json!({"name": "t", "inputSchema": schema}).to_string();
        tools.learn(&crate::snapshots::Described::read(&tool).unwrap());
        let body = message::read(body.as_bytes(), true).unwrap();
        check(&map, &body, &tools).map(|agreed| agreed.stateless).map_err(|fault| fault.code)
    }

    #[test]
    fn headers_that_repeat_the_body_have_to_agree() {
        let good = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "t"),
            ("mcp-param-region", "eu"),
        ];
        assert_eq!(judge(CALL, &good), Ok(true));
        for (i, wrong) in
            [(0, "2025-11-25"), (1, "tools/list"), (1, "TOOLS/CALL"), (2, "u"), (3, "us")]
        {
            let mut changed = good;
            changed[i].1 = wrong;
            assert_eq!(judge(CALL, &changed), Err(HEADER_MISMATCH), "{wrong}");
            let without: Vec<_> =
                good.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, h)| *h).collect();
            assert_eq!(judge(CALL, &without), Err(HEADER_MISMATCH), "without {}", good[i].0);
            let twice = [&good[..], &[good[i]]].concat();
            assert_eq!(judge(CALL, &twice), Err(INVALID_REQUEST), "{} twice", good[i].0);
        }
        let mut encoded = good;
        encoded[2].1 = "=?base64?dA==?=";
        encoded[3].1 = "=?base64?ZXU=?=";
        assert_eq!(judge(CALL, &encoded), Ok(true));
        encoded[3].1 = "=?base64?ZXU?=";
        assert_eq!(judge(CALL, &encoded), Err(HEADER_MISMATCH));
    }

    #[test]
    fn the_era_of_sessions_has_no_such_headers_but_they_must_not_lie() {
        assert_eq!(judge(OLD, &[]), Ok(false));
        assert_eq!(judge(OLD, &[("mcp-protocol-version", "2025-11-25")]), Ok(false));
        assert_eq!(judge(OLD, &[("mcp-method", "tools/list")]), Err(HEADER_MISMATCH));
        assert_eq!(judge(OLD, &[("mcp-name", "u")]), Err(HEADER_MISMATCH));
        assert_eq!(judge(OLD, &[("mcp-protocol-version", "1.0")]), Err(UNSUPPORTED_VERSION));
        let batch = format!("[{OLD},{OLD}]");
        assert_eq!(judge(&batch, &[]), Ok(false));
        assert_eq!(judge(&batch, &[("mcp-method", "tools/call")]), Err(HEADER_MISMATCH));
        let future = CALL.replace("2026-07-28", "2099-01-01");
        let headers = [
            ("mcp-protocol-version", "2099-01-01"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "t"),
            ("mcp-param-region", "eu"),
        ];
        assert_eq!(judge(&future, &headers), Ok(true), "the MCP server says whether it knows it");
    }
}
