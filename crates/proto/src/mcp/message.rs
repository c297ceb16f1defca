//! What an MCP request asks for, read from its JSON-RPC body: the body decides, never a header (MCP
//! transports 2025-03-26 to 2026-07-28).
//!
//! Only the members that a decision rests on are read. They are parsed strictly, since the MCP
//! server parses the same bytes with another parser: a member that occurs twice, or that differs
//! from a known one only in case, is rejected.

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// Supported revisions of MCP, oldest first.
pub const REVISIONS: [&str; 5] =
    ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", STATELESS];
/// The first revision without sessions.
pub const STATELESS: &str = "2026-07-28";
/// The only revision with batches; also the revision of a request without a version header.
pub const BATCHES: &str = "2025-03-26";
/// Maximum number of messages in a batch.
pub const LARGEST_BATCH: usize = 100;
/// Maximum number of members of a message, of its params, and of their `_meta`.
const MOST_MEMBERS: usize = 256;
/// Deepest nesting of a body: the limit of serde_json, which is widely used.
const DEEPEST: usize = 127;

/// JSON-RPC: the body is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// JSON-RPC: the body is not a request.
pub const INVALID_REQUEST: i64 = -32600;
/// MCP: a header disagrees with the body.
pub const HEADER_MISMATCH: i64 = -32020;
/// MCP: the protocol version is not supported.
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// Why a body is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    /// Not UTF-8 JSON, or nested too deeply.
    #[error("The body is not JSON.")]
    NotJson,
    /// Not a JSON-RPC message, or one that parsers could read in two ways.
    #[error(
        "The body is not one JSON-RPC message with distinct members, spelled as the protocol spells \
         them."
    )]
    NotMessage,
    /// A batch in a revision without batches, an empty one, or one that is too long.
    #[error("Batches of 1 to 100 messages exist in revision 2025-03-26 only.")]
    Batch,
}

impl McpError {
    /// The JSON-RPC error code.
    pub const fn code(self) -> i64 {
        match self {
            Self::NotJson => PARSE_ERROR,
            Self::NotMessage | Self::Batch => INVALID_REQUEST,
        }
    }
}

/// Kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It expects a response.
    Request,
    /// It does not.
    Notification,
    /// It is a response to a request of the server.
    Response,
}

/// One message, as far as decisions and the audit trail need it.
#[derive(Debug)]
pub struct Message<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its id as written; `None` for a notification.
    pub id: Option<&'a RawValue>,
    /// Its method; empty for a response.
    pub method: Cow<'a, str>,
    /// `params.name`: the tool or prompt.
    pub name: Option<Cow<'a, str>>,
    /// `params.uri`: the resource.
    pub uri: Option<Cow<'a, str>>,
    /// `params.taskId`: the task.
    pub task: Option<Cow<'a, str>>,
    /// `params.arguments` as written.
    pub arguments: Option<&'a RawValue>,
    /// The revision that `params._meta` names.
    pub version: Option<Cow<'a, str>>,
    /// The name or URI that `params.ref` of a completion names, and whether it is a prompt.
    pub reference: Option<(bool, Cow<'a, str>)>,
    /// URIs of `params.notifications.resourceSubscriptions` of a subscription.
    pub subscriptions: Vec<Cow<'a, str>>,
}

/// What a message is about, for matching against rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target<'m> {
    /// A tool by name.
    Tool(&'m str),
    /// A prompt by name.
    Prompt(&'m str),
    /// A resource by URI.
    Resource(&'m str),
    /// A method that concerns none of these.
    Method(&'m str),
    /// A response to a request of the server.
    Answer,
}

impl Target<'_> {
    /// The name, URI or method.
    pub fn name(&self) -> &str {
        match self {
            Self::Tool(name) | Self::Prompt(name) | Self::Resource(name) | Self::Method(name) => {
                name
            }
            Self::Answer => "",
        }
    }
}

/// The name of a target that is missing: no rule matches it.
const NAMELESS: &str = "";

impl Message<'_> {
    /// The targets of the message. A call without a name counts as a call of the tool with the
    /// empty name, which no rule matches.
    pub fn targets(&self) -> Vec<Target<'_>> {
        let name = self.name.as_deref().unwrap_or(NAMELESS);
        let uri = self.uri.as_deref().unwrap_or(NAMELESS);
        let one = match (self.kind, self.method.as_ref()) {
            (Kind::Response, _) => Target::Answer,
            (_, "tools/call") => Target::Tool(name),
            (_, "prompts/get") => Target::Prompt(name),
            (_, "resources/read" | "resources/subscribe" | "resources/unsubscribe") => {
                Target::Resource(uri)
            }
            (_, "completion/complete") => match &self.reference {
                Some((true, name)) => Target::Prompt(name),
                Some((false, uri)) => Target::Resource(uri),
                None => Target::Method(&self.method),
            },
            (_, method) => Target::Method(method),
        };
        let more = self.subscriptions.iter().map(|uri| Target::Resource(uri));
        std::iter::once(one).chain(more).collect()
    }

    /// The value that `Mcp-Name` repeats, if the message has one.
    pub fn header_name(&self) -> Option<&str> {
        match self.method.as_ref() {
            "tools/call" | "prompts/get" => self.name.as_deref(),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                self.uri.as_deref()
            }
            "tasks/get" | "tasks/update" | "tasks/cancel" => self.task.as_deref(),
            _ => None,
        }
    }
}

/// A body: one message, or a batch.
#[derive(Debug)]
pub struct Body<'a> {
    /// The messages.
    pub messages: Vec<Message<'a>>,
    /// Whether they were in an array.
    pub batch: bool,
}

/// Parses a body. `batches`: whether the request's revision allows batches.
pub fn read(body: &[u8], batches: bool) -> Result<Body<'_>, McpError> {
    // Check the whole text, because the parser below skips members.
    let text = std::str::from_utf8(body).map_err(|_| McpError::NotJson)?;
    if is_deep(body) {
        return Err(McpError::NotJson);
    }
    let array = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('[');
    let fault = |error: serde_json::Error| match error.classify() {
        serde_json::error::Category::Data => McpError::NotMessage,
        _ => McpError::NotJson,
    };
    if !array {
        let message = serde_json::from_str::<Written<'_>>(text).map_err(fault)?;
        return Ok(Body { messages: vec![message.check()?], batch: false });
    }
    if !batches {
        return Err(McpError::Batch);
    }
    let written = serde_json::from_str::<Vec<Written<'_>>>(text).map_err(fault)?;
    if written.is_empty() || written.len() > LARGEST_BATCH {
        return Err(McpError::Batch);
    }
    let messages = written.into_iter().map(Written::check).collect::<Result<_, _>>()?;
    Ok(Body { messages, batch: true })
}

/// Whether brackets are nested deeper than other parsers can be expected to handle.
fn is_deep(body: &[u8]) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                if depth > DEEPEST {
                    return true;
                }
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The members of an object, each once.
struct Members<'k> {
    known: &'k [&'static str],
    seen: Vec<String>,
}

impl<'k> Members<'k> {
    fn new(known: &'k [&'static str]) -> Self {
        Self { known, seen: Vec::new() }
    }

    /// The index of the known member that `key` is. An error for a duplicate, and for a key that
    /// some parser could take for a known one.
    fn take<E: de::Error>(&mut self, key: &str) -> Result<Option<usize>, E> {
        if self.seen.len() >= MOST_MEMBERS {
            return Err(E::custom("it has more members than any message needs"));
        }
        if self.seen.iter().any(|seen| seen == key) {
            return Err(E::custom("a member occurs twice"));
        }
        let place = self.known.iter().position(|known| *known == key);
        if place.is_none() && self.known.iter().any(|known| folded(key) == folded(known)) {
            return Err(E::custom("a member is spelled almost like a known one"));
        }
        self.seen.push(key.to_owned());
        Ok(place)
    }
}

/// A text as parsers compare it that ignore case, including the two non-ASCII letters that fold to
/// ASCII.
fn folded(text: &str) -> String {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    text.chars().map(fold).collect()
}

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Self)
    }
}

/// A string, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[derive(Default)]
struct Written<'a> {
    id: Option<&'a RawValue>,
    method: Option<Cow<'a, str>>,
    params: Params<'a>,
    answers: bool,
}

impl<'a> Written<'a> {
    fn check(self) -> Result<Message<'a>, McpError> {
        // An id is a string or an integer: parsers compare other values in different ways.
        let id = match self.id.map(RawValue::get) {
            None => None,
            Some(text) if text.starts_with('"') || text.parse::<i64>().is_ok() => self.id,
            // An error about a message whose id could not be parsed.
            Some("null") if self.method.is_none() => self.id,
            Some(_) => return Err(McpError::NotMessage),
        };
        let kind = match (&self.method, id, self.answers) {
            (Some(_), Some(_), false) => Kind::Request,
            (Some(_), None, false) => Kind::Notification,
            (None, Some(_), true) => Kind::Response,
            _ => return Err(McpError::NotMessage),
        };
        let Params { name, uri, task, arguments, version, reference, subscriptions } = self.params;
        let method = self.method.unwrap_or_default();
        Ok(Message {
            kind,
            id,
            method,
            name,
            uri,
            task,
            arguments,
            version,
            reference,
            subscriptions,
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Written<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl<'de> Visitor<'de> for WrittenVisitor {
    type Value = Written<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC message")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::new(&["jsonrpc", "id", "method", "params", "result", "error"]);
        let mut written = Written::default();
        let mut versioned = false;
        while let Some(Key(key)) = access.next_key()? {
            match members.take(&key)? {
                Some(0) => {
                    let Text(version) = access.next_value()?;
                    versioned = version == "2.0";
                }
                Some(1) => written.id = Some(access.next_value()?),
                Some(2) => {
                    let Text(method) = access.next_value()?;
                    written.method = Some(method);
                }
                Some(3) => written.params = access.next_value::<MaybeParams<'_>>()?.0,
                Some(_) => {
                    access.next_value::<IgnoredAny>()?;
                    written.answers = true;
                }
                None => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        if versioned { Ok(written) } else { Err(de::Error::custom("jsonrpc is not 2.0")) }
    }
}

#[derive(Default)]
struct Params<'a> {
    name: Option<Cow<'a, str>>,
    uri: Option<Cow<'a, str>>,
    task: Option<Cow<'a, str>>,
    arguments: Option<&'a RawValue>,
    version: Option<Cow<'a, str>>,
    reference: Option<(bool, Cow<'a, str>)>,
    subscriptions: Vec<Cow<'a, str>>,
}

/// `params` may be null.
struct MaybeParams<'a>(Params<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for MaybeParams<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParamsVisitor).map(Self)
    }
}

struct ParamsVisitor;

impl<'de> Visitor<'de> for ParamsVisitor {
    type Value = Params<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Params::default())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let known = ["name", "uri", "arguments", "_meta", "ref", "notifications", "taskId"];
        let mut members = Members::new(&known);
        let mut params = Params::default();
        while let Some(Key(key)) = access.next_key()? {
            match members.take(&key)? {
                Some(0) => params.name = text_of(access.next_value()?),
                Some(1) => params.uri = text_of(access.next_value()?),
                Some(2) => params.arguments = Some(access.next_value()?),
                Some(3) => params.version = access.next_value::<Meta<'_>>()?.0,
                Some(4) => params.reference = reference(access.next_value()?)?,
                Some(5) => params.subscriptions = subscriptions(access.next_value()?)?,
                Some(6) => params.task = text_of(access.next_value()?),
                _ => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(params)
    }
}

/// A string; any other value counts as absent.
fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|Text(text)| text)
}

struct Meta<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Meta<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MetaVisitor)
    }
}

struct MetaVisitor;

impl<'de> Visitor<'de> for MetaVisitor {
    type Value = Meta<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Meta(None))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::new(&["io.modelcontextprotocol/protocolVersion"]);
        let mut version = None;
        while let Some(Key(key)) = access.next_key()? {
            if members.take(&key)?.is_some() {
                version = text_of(access.next_value()?);
            } else {
                access.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Meta(version))
    }
}

/// Members of one of the small objects below, as written.
struct Small<'a, const N: usize>([Option<&'a RawValue>; N]);

fn small<'a, const N: usize, E: de::Error>(
    raw: &'a RawValue,
    known: [&'static str; N],
) -> Result<Small<'a, N>, E> {
    struct SmallVisitor<const N: usize>([&'static str; N]);
    impl<'de, const N: usize> Visitor<'de> for SmallVisitor<N> {
        type Value = Small<'de, N>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut members = Members::new(&self.0);
            let mut found = [None; N];
            while let Some(Key(key)) = access.next_key()? {
                match members.take(&key)? {
                    Some(place) => found[place] = Some(access.next_value()?),
                    None => {
                        access.next_value::<IgnoredAny>()?;
                    }
                }
            }
            Ok(Small(found))
        }
    }
    let mut json = serde_json::Deserializer::from_str(raw.get());
    json.deserialize_map(SmallVisitor(known)).map_err(E::custom)
}

/// `ref` of a completion.
fn reference<E: de::Error>(raw: &RawValue) -> Result<Option<(bool, Cow<'_, str>)>, E> {
    let Small([kind, name, uri]) = small(raw, ["type", "name", "uri"])?;
    let kind = kind.and_then(text_of).unwrap_or_default();
    let named = match kind.as_ref() {
        "ref/prompt" => name.map(|raw| (true, raw)),
        "ref/resource" => uri.map(|raw| (false, raw)),
        _ => None,
    };
    Ok(named.map(|(prompt, raw)| (prompt, text_of(raw).unwrap_or_default())))
}

/// `notifications` of `subscriptions/listen`: the resources to watch for changes.
fn subscriptions<E: de::Error>(raw: &RawValue) -> Result<Vec<Cow<'_, str>>, E> {
    let Small([list]) = small(raw, ["resourceSubscriptions"])?;
    let Some(list) = list else { return Ok(Vec::new()) };
    let uris: Vec<String> = serde_json::from_str(list.get()).map_err(E::custom)?;
    if uris.len() > LARGEST_BATCH {
        return Err(E::custom("more subscriptions than 100"));
    }
    Ok(uris.into_iter().map(Cow::Owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<(Kind, String), McpError> {
        let body = read(text.as_bytes(), false)?;
        let message = &body.messages[0];
        let targets = message.targets();
        let named = targets.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" ");
        Ok((message.kind, named))
    }

    #[test]
    fn a_message_says_what_it_is_about() {
        for (text, kind, target) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"draw","arguments":{}}}"#,
                Kind::Request,
                r#"Tool("draw")"#,
            ),
            (
                r#"{"params":{"name":"dr\u0061w"},"method":"tools\/call","id":"x","jsonrpc":"2.0"}"#,
                Kind::Request,
                r#"Tool("draw")"#,
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, Kind::Request, r#"Tool("")"#),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#,
                Kind::Request,
                r#"Tool("")"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":null}"#,
                Kind::Request,
                r#"Tool("")"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a"}}"#,
                Kind::Request,
                r#"Resource("file:///a")"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p"}}"#,
                Kind::Request,
                r#"Prompt("p")"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"}}}"#,
                Kind::Request,
                r#"Prompt("p")"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/resource","uri":"a"}}}"#,
                Kind::Request,
                r#"Resource("a")"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["a","b"]}}}"#,
                Kind::Request,
                r#"Method("subscriptions/listen") Resource("a") Resource("b")"#,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                Kind::Notification,
                r#"Method("notifications/initialized")"#,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"method":"tools/call"}}"#,
                Kind::Response,
                "Answer",
            ),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#, Kind::Response, "Answer"),
        ] {
            assert_eq!(one(text), Ok((kind, target.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        assert!(one(call).is_ok());
        for (from, to) in [
            ("\"id\":1", r#""id":1,"method":"tools/call""#),
            ("\"id\":1", r#""id":1,"Method":"tools/call""#),
            ("\"id\":1", r#""id":1,"METHOD":"tools/call""#),
            ("\"id\":1", r#""id":1,"param\u017f":{"name":"draw"}"#),
            ("\"id\":1", r#""id":1,"x":1,"x":2"#),
            ("\"id\":1", r#""id":1,"meth\u006fd":"tools/call""#),
            ("\"id\":1", r#""id":1.5"#),
            ("\"id\":1", r#""id":{}"#),
            ("\"id\":1", r#""id":null"#),
            ("\"id\":1", r#""id":1,"result":{}"#),
            ("\"2.0\"", "\"1.0\""),
            ("\"jsonrpc\":\"2.0\",", ""),
            ("\"tools/list\"", "7"),
            ("\"tools/list\"", r#""tools/call","params":{"name":"a","name":"b"}"#),
            ("\"tools/list\"", r#""tools/call","params":{"name":"a","Name":"b"}"#),
            (
                "\"tools/list\"",
                r#""tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"a","io.modelcontextprotocol/protocolVersion":"b"}}"#,
            ),
            ("\"tools/list\"", r#""tools/call","params":["a"]"#),
            (
                "\"tools/list\"",
                r#""completion/complete","params":{"ref":{"type":"ref/prompt","name":"a","name":"b"}}"#,
            ),
            ("\"tools/list\"", r#""tools/call","params":{"name":"\ud800"},"q":"#),
        ] {
            let changed = call.replace(from, to);
            assert_ne!(changed, call, "the mutation did nothing");
            assert!(one(&changed).is_err(), "{changed}");
        }
        // A name that is not valid text counts as absent.
        let surrogate =
            call.replace("\"tools/list\"", r#""tools/call","params":{"name":"\ud800"}"#);
        assert_eq!(one(&surrogate).map(|(_, target)| target), Ok(r#"Tool("")"#.to_owned()));
        // A string that was cut in the middle of a surrogate pair is for the server to judge, if no
        // decision rests on it.
        let cut = call.replace(
            "\"tools/list\"",
            r#""tools/call","params":{"name":"draw","arguments":{"text":"\ud83d"}}"#,
        );
        assert_eq!(one(&cut).map(|(_, target)| target), Ok(r#"Tool("draw")"#.to_owned()));
    }

    #[test]
    fn what_is_no_json_rpc_is_refused() {
        for (bytes, error) in [
            (&b""[..], McpError::NotJson),
            (b"{", McpError::NotJson),
            (b"{\"a\":1}x", McpError::NotMessage),
            (b"nul", McpError::NotJson),
            (b"\xef\xbb\xbf{}", McpError::NotJson),
            (b"{\"a\":\"\xff\"}", McpError::NotJson),
            (b"7", McpError::NotMessage),
            (b"{}", McpError::NotMessage),
            (b"[]", McpError::Batch),
        ] {
            assert_eq!(read(bytes, false).map(|_| ()), Err(error), "{bytes:?}");
        }
        let deep = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"x":{}{}}}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        assert_eq!(read(deep.as_bytes(), false).map(|_| ()), Err(McpError::NotJson));
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"x":"{}\"["}}}}"#,
            "[".repeat(10_000)
        );
        assert!(read(text.as_bytes(), false).is_ok(), "brackets in a text");
    }

    #[test]
    fn a_message_has_so_many_members_and_no_more() {
        let members = |count: usize| -> String {
            let many: Vec<_> = (0..count).map(|n| format!(r#""m{n}":1"#)).collect();
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{{}}}}}"#, many.join(","))
        };
        assert!(one(&members(200)).is_ok());
        assert_eq!(one(&members(300_000)), Err(McpError::NotMessage));
    }

    #[test]
    fn a_batch_is_judged_member_by_member_where_there_are_batches() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let batch = format!("[{call},{}]", call.replace('1', "2"));
        assert_eq!(read(batch.as_bytes(), false).map(|_| ()), Err(McpError::Batch));
        assert_eq!(read(batch.as_bytes(), true).map(|b| b.messages.len()), Ok(2));
        assert_eq!(read(b"[]", true).map(|_| ()), Err(McpError::Batch));
        assert_eq!(read(b"[[]]", true).map(|_| ()), Err(McpError::NotMessage));
        let long = format!("[{}]", vec![call; 101].join(","));
        assert_eq!(read(long.as_bytes(), true).map(|_| ()), Err(McpError::Batch));
    }
}
