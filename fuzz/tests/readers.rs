//! Feeds every parser of untrusted input with valid inputs that are changed at random. Each runs
//! for a second in `cargo test`; longer with
//! `BOLERO_RANDOM_TEST_TIME_MS=60000 cargo test -p passavant-fuzz`, and under a fuzzer with
//! `cargo bolero test NAME`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests stop at the first surprise")]
#![allow(unused_crate_dependencies, reason = "they are the test's, not the library's")]

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bolero::{TypeGenerator, check};
use passavant_outbound::{Event, Parser};
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::jwk::{Algorithm, KeySet},
    jose::jws::{Unverified, peek},
    mcp::{
        message,
        operation_policy::{CallerFacts, Rule, Rules, ToolState},
    },
    oauth::{
        client_document::{self, DocumentUrl},
        form::Form,
        redirect_uri,
        scope::Scopes,
    },
    ssf::{self, PollRequest, StreamRequest, StreamStatus},
    time::Timestamp,
    xaa::id_jag::UnverifiedIdJag,
};
use passavant_saml::{Expected, IdentityProviderMetadata};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// One change of an input.
#[derive(Clone, Debug, TypeGenerator)]
enum Edit {
    /// Replaces a byte.
    Put(u16, u8),
    /// Inserts bytes.
    Insert(u16, Vec<u8>),
    /// Inserts a word that has a meaning for parsers.
    Word(u16, u8),
    /// Removes bytes.
    Cut(u16, u8),
    /// Repeats a part of it many times.
    Repeat(u16, u8, u16),
}

/// A valid input, by its number, and the changes to it.
#[derive(Clone, Debug, TypeGenerator)]
struct Case {
    good: u8,
    edits: Vec<Edit>,
}

/// Words that have a meaning for parsers.
const WORDS: [&[u8]; 34] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"1e999",
    b"-0",
    b"\\u0000",
    b"\\ud800",
    b".",
    b"=",
    b"&",
    b"%00",
    b"%",
    b"\r\n",
    b"\n\n",
    b"\xef\xbb\xbf",
    b"\xff",
    b"https://",
    b"<",
    b">",
    b"<!-- -->",
    b"<![CDATA[",
    b"&#13;",
    b" xmlns=\"\"",
    b" ID=\"ID_a7f7fb3f-15ea-46a8-8a18-c8c44b99a8e1\"",
    b"<saml:Assertion>",
    b"</saml:Assertion>",
    b"<samlp:Extensions>",
];

impl Case {
    fn bytes(&self, good: &[&[u8]]) -> Vec<u8> {
        let mut bytes = good[usize::from(self.good) % good.len()].to_vec();
        for edit in self.edits.iter().take(24) {
            let at = |place: &u16, bytes: &[u8]| usize::from(*place) % (bytes.len() + 1);
            match edit {
                Edit::Put(place, byte) => {
                    let place = at(place, &bytes);
                    if let Some(held) = bytes.get_mut(place) {
                        *held = *byte;
                    }
                }
                Edit::Insert(place, more) => {
                    let place = at(place, &bytes);
                    bytes.splice(place..place, more.iter().copied().take(64));
                }
                Edit::Word(place, word) => {
                    let place = at(place, &bytes);
                    let word = WORDS[usize::from(*word) % WORDS.len()];
                    bytes.splice(place..place, word.iter().copied());
                }
                Edit::Cut(place, most) => {
                    let place = at(place, &bytes);
                    let end = (place + usize::from(*most)).min(bytes.len());
                    bytes.drain(place..end);
                }
                Edit::Repeat(place, length, times) => {
                    let place = at(place, &bytes);
                    let end = (place + usize::from(*length)).min(bytes.len());
                    let part = bytes[place..end].repeat(usize::from(*times) % 2000);
                    if bytes.len() + part.len() < 200_000 {
                        bytes.splice(place..place, part);
                    }
                }
            }
        }
        bytes
    }
}

/// Longest time that a parser may take for 200 kB, in a build without optimization.
const PATIENCE: Duration = Duration::from_secs(2);

fn readers(good: &'static [&'static [u8]], read: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    // First the valid inputs unchanged: if they were rejected, the test would show nothing.
    for good in good {
        read(good);
    }
    check!().with_type::<Case>().for_each(|case| {
        let bytes = case.bytes(good);
        let began = Instant::now();
        read(&bytes);
        assert!(began.elapsed() < PATIENCE, "{} bytes took {:?}", bytes.len(), began.elapsed());
    });
}

fn jwt(header: &str, claims: &str) -> Vec<u8> {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.{}",
        part(header),
        part(claims),
        part("a signature of sixty-four bytes, more or less, as ES256 has it")
    )
    .into()
}

/// Changes the parts of a JWT before they are encoded: invalid base64url would be rejected at once.
fn jwts(read: impl Fn(&str) + std::panic::RefUnwindSafe) {
    const HEADERS: [&[u8]; 2] = [
        br#"{"alg":"ES256","typ":"oauth-id-jag+jwt","kid":"one"}"#,
        br#"{"alg":"none","typ":"JWT","crit":["b64"]}"#,
    ];
    const CLAIMS: [&[u8]; 2] = [
        br#"{"iss":"https://idp.example","sub":"u","aud":"https://as.example","client_id":"c","jti":"1","iat":1,"exp":2,"resource":["https://mcp.example"],"scope":"read write","act":{"sub":"g"}}"#,
        br#"{"iss":7,"aud":[],"exp":1e999,"sub":{"a":[[[[]]]]}}"#,
    ];
    check!().with_type::<(Case, Case, Option<Case>)>().for_each(|(header, claims, whole)| {
        let header = String::from_utf8_lossy(&header.bytes(&HEADERS)).into_owned();
        let claims = String::from_utf8_lossy(&claims.bytes(&CLAIMS)).into_owned();
        let token = jwt(&header, &claims);
        read(std::str::from_utf8(&token).unwrap());
        if let Some(whole) = whole {
            let edited = Case { good: 0, edits: whole.edits.clone() }.bytes(&[&token]);
            read(&String::from_utf8_lossy(&edited));
        }
    });
}

#[test]
fn jws() {
    jwts(|token| {
        if let Ok(read) = Unverified::parse(token) {
            // Three parts, and nothing that another parser would read differently.
            assert_eq!(token.matches('.').count(), 2);
            assert!(token.len() <= 16 * 1024 && read.kid().is_none_or(|kid| kid.len() <= 256));
        }
        let _ = peek(token);
    });
}

#[test]
fn security_event() {
    const KEYS: &[u8] = br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k","alg":"ES256",
        "x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}"#;
    let issuer = Issuer::parse("https://idp.example").unwrap();
    jwts(|token| {
        let keys = KeySet::parse(KEYS, Algorithm::ES256).unwrap();
        let _ = ssf::claimed(token);
        assert!(ssf::verify(token, &keys, (&issuer, "us"), Timestamp(1)).is_err());
    });
}

#[test]
fn signal_requests() {
    const GOOD: &[&[u8]] = &[
        br#"{"stream_id":"s","delivery":{"method":"urn:ietf:rfc:8935","endpoint_url":"https://a.example/","authorization_header":"Bearer x"},"events_requested":["https://schemas.openid.net/secevent/caep/event-type/session-revoked"],"description":"d"}"#,
        br#"{"stream_id":"s","status":"paused","reason":"r","state":"t"}"#,
        br#"{"maxEvents":10,"returnImmediately":true,"ack":["a","b"],"setErrs":{"c":{"err":"invalid_key","description":"d"}}}"#,
    ];
    readers(GOOD, |bytes| {
        let held = serde_json::json!({"aud": "us", "iss": "https://idp.example"});
        let _ = StreamRequest::parse(bytes, None);
        let _ = StreamRequest::parse(bytes, Some(&held));
        let _ = StreamStatus::parse(bytes);
        let _ = StreamStatus::parse_verification(bytes);
        if let Ok(poll) = PollRequest::parse(bytes) {
            assert!(poll.most <= 100 && poll.acknowledged.len() <= 1000);
        }
    });
}

#[test]
fn id_jag() {
    jwts(|token| {
        if let Ok(read) = UnverifiedIdJag::parse(token) {
            assert!(Unverified::parse(token).is_ok());
            let _ = (read.issuer().len(), read.kid());
        }
    });
}

/// A response that Keycloak 26 made, and its metadata. Whatever is made of the response: what is accepted
/// says what the genuine one says.
#[test]
fn saml_response() {
    const RESPONSE: &[u8] = include_bytes!("keycloak-response.xml");
    const METADATA: &str = include_str!("../../tests/interop/keycloak-metadata.xml");
    // 2026-11-30T19:52:11Z.
    let now = Timestamp(1_796_068_331);
    let metadata = IdentityProviderMetadata::read(METADATA, now).unwrap();
    let certificates: Vec<Vec<u8>> =
        metadata.certificates.iter().map(|held| STANDARD.decode(held).unwrap()).collect();
    let told = move |document: &[u8]| {
        let expected = Expected {
            issuer: &metadata.entity_id,
            certificates: &certificates,
            audience: "http://127.0.0.1:18400/saml/ours",
            recipient: Some("http://127.0.0.1:18400/callback/corp"),
            request: Some("_e01ac3c6-1407-4f9e-ac42-b6ae21d581c1"),
            now,
        };
        let read = passavant_saml::verify(&STANDARD.encode(document), &expected).ok()?;
        let names = ["email", "givenName", "username", "groups"];
        let values = names.map(|name| {
            let values = read.values(name).unwrap_or_default();
            values.into_iter().map(str::to_owned).collect::<Vec<_>>()
        });
        Some((read.name_id().cloned(), values, read.id().to_owned(), read.ends()))
    };
    let genuine = told(RESPONSE).expect("the genuine one is accepted");
    readers(&[RESPONSE], move |bytes| {
        if let Some(read) = told(bytes) {
            assert_eq!(read, genuine, "{}", String::from_utf8_lossy(bytes));
        }
    });
}

#[test]
fn saml_metadata() {
    readers(&[include_bytes!("../../tests/interop/keycloak-metadata.xml")], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(read) = IdentityProviderMetadata::read(&text, Timestamp(0)) {
            assert!(!read.certificates.is_empty() && read.certificates.len() <= 16);
            assert!(read.redirect.is_some() || read.post.is_some());
        }
    });
}

#[test]
fn mcp_message() {
    readers(
        &[
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"draw","arguments":{"x":1},"_meta":{"progressToken":"p"}}}"#,
            br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            br#"[{"jsonrpc":"2.0","id":"a","method":"resources/read","params":{"uri":"file:///a"}},{"jsonrpc":"2.0","id":2,"result":{}}]"#,
        ],
        |bytes| {
            for batches in [true, false] {
                if let Ok(body) = message::read(bytes, batches) {
                    assert!(!body.messages.is_empty() && (batches || !body.batch));
                    // Valid JSON. Members that are skipped may contain half of a surrogate pair,
                    // which JavaScript programs write when they cut a string inside a character: no
                    // decision rests on them.
                    assert!(serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok());
                }
            }
        },
    );
}

#[test]
fn operation_policy() {
    readers(
        &[
            br#"[{"tools":["read_*","draw"],"scopes":["read"]},{"tools":["*"],"deny":true}]"#,
            br#"[{"name":"all","read_only_tools":true},{"prompts":["*"]},{"resources":["file:///a/*"],"max_age":60,"acr_values":["x"]},{"methods":["logging/*"]}]"#,
        ],
        |bytes| {
            let Ok(rules) = serde_json::from_slice::<Vec<Rule>>(bytes) else { return };
            let denied: Vec<String> = rules
                .iter()
                .filter(|rule| rule.deny)
                .flat_map(|rule| rule.tools.iter().filter(|tool| !tool.ends_with('*')).cloned())
                .collect();
            let Ok(rules) = Rules::new(Scopes::default(), rules) else { return };
            let scopes = rules.scopes();
            let caller =
                CallerFacts { scopes: &scopes, auth_time: Some(Timestamp(0)), acr: Some("x") };
            for tool in denied.iter().map(String::as_str).chain(["draw", "read_it", "", "*"]) {
                let decided = rules.decide(
                    &[message::Target::Tool(tool)],
                    caller,
                    |_| ToolState::Approved { read_only: true },
                    Timestamp(0),
                );
                assert!(!(denied.iter().any(|denied| denied == tool) && decided.is_ok()), "{tool}");
            }
        },
    );
}

#[test]
fn events() {
    readers(
        &[
            b"event: message\nid: 7\nretry: 100\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":1}\n\n: a comment\n\ndata\n\n",
            b"\xef\xbb\xbfdata: a\r\n\r\ndata: b\r\rdata: c\n\n",
        ],
        |bytes| {
            let whole = of_chunks([bytes]);
            // The result does not depend on where a stream is divided.
            for size in [1, 2, 7] {
                if bytes.len() < 4000 {
                    assert_eq!(of_chunks(bytes.chunks(size)), whole, "in chunks of {size}");
                }
            }
        },
    );
}

fn of_chunks<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> VecDeque<Event> {
    let (mut parser, mut events) = (Parser::default(), VecDeque::new());
    for chunk in chunks {
        parser.feed(chunk, &mut events);
    }
    events
}

#[test]
fn form() {
    readers(
        &[
            b"grant_type=authorization_code&code=c&redirect_uri=http%3A%2F%2F127.0.0.1%2Fcb&resource=a&resource=b&scope=a+b",
            b"client_id=a%00b&state=%F0%9F%98%80&=&&x",
        ],
        |bytes| {
            let Ok(form) = Form::parse(bytes) else { return };
            for name in ["grant_type", "code", "state", "client_id"] {
                assert!(form.all(name).count() <= 1, "{name} twice");
                assert!(form.optional(name).is_none_or(|value| !value.contains('\0')));
            }
            // A form that is written again is parsed as the same.
            let names = ["grant_type", "code", "redirect_uri", "resource", "scope", "state"];
            let again = Form::parse(form.only(&names).as_bytes()).unwrap();
            for name in names {
                assert!(again.all(name).eq(form.all(name)), "{name}");
            }
        },
    );
}

#[test]
fn uri() {
    readers(
        &[
            b"https://idp.example/tenant/a",
            b"http://127.0.0.1:8080/callback?x=1",
            b"HTTPS://MCP.example:443/a/../b/%7euser/#f",
            b"com.example.app:/callback",
            b"http://[::1]:3000/",
        ],
        |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(issuer) = Issuer::parse(&text) {
                assert_eq!(issuer.as_str(), text, "an issuer is what was written");
            }
            if let Ok(resource) = Resource::parse(&text) {
                let normal = resource.normalized();
                assert_eq!(Resource::parse(normal).unwrap().normalized(), normal, "{text}");
                assert!(url::Url::parse(&text).unwrap().fragment().is_none());
            }
            for public in [true, false] {
                if redirect_uri::check_for(public, &text).is_ok() {
                    assert!(!text.chars().any(char::is_control) && !text.contains('#'), "{text}");
                }
            }
        },
    );
}

#[test]
fn metadata_document() {
    const URL: &str = "https://app.example/client.json";
    readers(
        &[
            br#"{"client_id":"https://app.example/client.json","client_name":"App","redirect_uris":["https://app.example/cb","http://127.0.0.1/cb"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"],"response_types":["code"]}"#,
            br#"{"client_id":"https://app.example/client.json","client_name":"A","token_endpoint_auth_method":"private_key_jwt","jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]},"redirect_uris":["https://app.example/cb"]}"#,
        ],
        |bytes| {
            let url = DocumentUrl::parse(URL).unwrap();
            if let Ok(client) = client_document::read(&url, bytes) {
                assert_eq!(client.id, URL, "a document names itself");
                for uri in &client.redirect_uris {
                    assert!(!uri.chars().any(char::is_control), "{uri}");
                }
            }
        },
    );
}
