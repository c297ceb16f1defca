//! `passavant inspect`: checks a JWT claim by claim against the rules for its kind. The JWT is read
//! from standard input, so that it stays out of arguments and shell history. The signature is
//! neither verified nor printed, so the output cannot be used as a token.

use anyhow::{Result, anyhow, bail};
use passavant_host as system;
use passavant_host::plain;
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::claims::Claims,
    jose::dpop,
    jose::jwk::Algorithm,
    jose::jws,
    oauth::client_assertion,
    xaa::id_jag,
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Kinds of JWT that are distinguished.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    IdJag,
    AccessToken,
    IdToken,
    ClientAssertion,
    DpopProof,
    LogoutToken,
    SecurityEvent,
    Unknown,
}

impl Kind {
    fn of(header: &Claims, claims: &Claims) -> Self {
        let typ = header.value("typ").and_then(Value::as_str).unwrap_or_default();
        let typ = typ.to_ascii_lowercase();
        match typ.strip_prefix("application/").unwrap_or(&typ) {
            id_jag::TYPE => Self::IdJag,
            "at+jwt" => Self::AccessToken,
            "dpop+jwt" => Self::DpopProof,
            client_assertion::TYPE => Self::ClientAssertion,
            "logout+jwt" => Self::LogoutToken,
            "secevent+jwt" => Self::SecurityEvent,
            _ if ["nonce", "auth_time", "at_hash", "azp"]
                .iter()
                .any(|c| claims.value(c).is_some()) =>
            {
                Self::IdToken
            }
            _ if claims.value("iss").is_some() && claims.value("iss") == claims.value("sub") => {
                Self::ClientAssertion
            }
            _ => Self::Unknown,
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::IdJag => {
                "an ID-JAG: a grant for one resource authorization server (ID-JAG draft section 3)"
            }
            Self::AccessToken => "an access token (RFC 9068)",
            Self::IdToken => "an ID token (OpenID Connect Core 2)",
            Self::ClientAssertion => "a client assertion (RFC 7523)",
            Self::DpopProof => "a DPoP proof (RFC 9449)",
            Self::LogoutToken => "a logout token (OpenID Connect Back-Channel Logout)",
            Self::SecurityEvent => "a security event token (RFC 8417)",
            Self::Unknown => "a JWT of unknown kind",
        }
    }

    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::IdJag => &["iss", "sub", "aud", "client_id", "jti", "exp", "iat"],
            Self::AccessToken => &["iss", "exp", "aud", "sub", "client_id", "iat", "jti"],
            Self::IdToken => &["iss", "sub", "aud", "exp", "iat"],
            Self::ClientAssertion => &["iss", "sub", "aud", "jti", "exp"],
            Self::DpopProof => &["htm", "htu", "iat", "jti"],
            Self::LogoutToken => &["iss", "aud", "iat", "jti", "events"],
            Self::SecurityEvent => &["iss", "iat", "jti", "events"],
            Self::Unknown => &[],
        }
    }

    /// Longest lifetime that Passavant accepts, in seconds.
    const fn longest(self) -> Option<i64> {
        match self {
            Self::IdJag => Some(id_jag::LONGEST_LIFETIME),
            Self::ClientAssertion => Some(client_assertion::LONGEST_LIFETIME),
            Self::AccessToken => Some(passavant_proto::oauth::access_token::LONGEST_LIFETIME),
            Self::IdToken => Some(passavant_proto::oidc::id_token::LONGEST_LIFETIME),
            _ => None,
        }
    }
}

/// One remark about a header member or claim.
#[derive(Clone)]
struct Note {
    name: String,
    value: String,
    /// `ok`, `wrong`, or `note` for a remark that is neither.
    verdict: &'static str,
    text: String,
}

/// Explains a JWT. The exit code is 1 if it breaks a rule for its kind.
pub fn run(as_json: bool, arguments: &[String]) -> Result<ExitCode> {
    if !arguments.is_empty() {
        bail!(
            "a token is read from standard input, not from the arguments, which other programs see\n\
             hint: `passavant token URL | passavant inspect`"
        );
    }
    let text = std::io::read_to_string(std::io::stdin())?;
    let token = text.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    if token.is_empty() {
        bail!("nothing came on standard input\nhint: `passavant token URL | passavant inspect`");
    }
    let (header, claims) = jws::peek(token).map_err(|error| {
        anyhow!(
            "this is not a JWT: {error}\n\
             hint: refresh tokens and authorization codes are opaque; they cannot be inspected"
        )
    })?;
    let now = system::clock().now().0;
    let kind = Kind::of(&header, &claims);
    let notes = explain(kind, &header, &claims, now);
    let wrong = notes.iter().filter(|note| note.verdict == "wrong").count();
    if as_json {
        let list: Vec<Value> = notes
            .iter()
            .map(
                |n| json!({"name": n.name, "value": n.value, "verdict": n.verdict, "text": n.text}),
            )
            .collect();
        let report = json!({"kind": kind.describe(), "wrong": wrong, "notes": list});
        println!("{}", system::json_text(&report)?);
    } else {
        println!("This is {}. Its signature was not verified.\n", kind.describe());
        for note in &notes {
            let mark = match note.verdict {
                "ok" => "ok   ",
                "wrong" => "WRONG",
                _ => "     ",
            };
            println!("{mark} {:<22} {}", plain(&note.name), plain(&note.value));
            if !note.text.is_empty() {
                println!("      {:<22} {}", "", plain(&note.text));
            }
        }
        if wrong > 0 {
            println!("\n{wrong} of these break a rule for its kind.");
        }
    }
    Ok(if wrong > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn explain(kind: Kind, header: &Claims, claims: &Claims, now: i64) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut say = |name: &str, value: Option<&Value>, verdict: &'static str, text: &str| {
        let value = match value {
            None => "(missing)".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let (name, text) = (name.to_owned(), text.to_owned());
        notes.push(Note { name, value, verdict, text });
    };
    let alg = header.value("alg").and_then(Value::as_str).unwrap_or_default();
    let known = Algorithm::ALL.iter().any(|a| a.name() == alg);
    let text = if known { "" } else { "only ES256, EdDSA, PS256 and RS256 are accepted" };
    say("header alg", header.value("alg"), if known { "ok" } else { "wrong" }, text);
    let text = match kind {
        Kind::Unknown => "Passavant knows no kind of token with this typ",
        Kind::IdToken if header.value("typ").is_none() => "ID tokens may leave it out",
        _ => "",
    };
    say("header typ", header.value("typ"), if kind == Kind::Unknown { "note" } else { "ok" }, text);
    if let Some(kid) = header.value("kid") {
        say("header kid", Some(kid), "note", "names the issuer's key");
    }
    for name in ["jwk", "jku", "x5c", "x5u"] {
        if let Some(value) = header.value(name)
            && !(kind == Kind::DpopProof && name == "jwk")
        {
            say(&format!("header {name}"), Some(value), "note", "never used as a source of keys");
        }
    }
    for name in kind.required() {
        if claims.value(name).is_none() {
            say(name, None, "wrong", "this kind of JWT must carry it");
        }
    }
    for (name, value) in claims.clone().into_object() {
        let (verdict, text) = claim(kind, claims, &name, &value, now);
        say(&name, Some(&value), verdict, &text);
    }
    notes
}

/// Whether a claim follows the rules for its kind, and what it means.
fn claim(
    kind: Kind,
    claims: &Claims,
    name: &str,
    value: &Value,
    now: i64,
) -> (&'static str, String) {
    let whole = value.as_i64().filter(|seconds| *seconds >= 0);
    match name {
        "exp" | "iat" | "nbf" | "auth_time" => {
            let Some(at) = whole else {
                return ("wrong", "has to be a whole number of seconds since 1970".to_owned());
            };
            time(kind, claims, name, at, now)
        }
        "iss" if matches!(kind, Kind::ClientAssertion) => {
            ("ok", "the client itself, as in sub".to_owned())
        }
        "iss" => match value.as_str().map(Issuer::parse) {
            Some(Ok(_)) => ("ok", "compared byte for byte: mind a trailing slash".to_owned()),
            Some(Err(error)) => ("wrong", error.to_string()),
            None => ("wrong", "has to be a string".to_owned()),
        },
        "aud" => audience(kind, value),
        "resource" => resources(value),
        "scope" => match value.as_str() {
            Some(text) if passavant_proto::oauth::scope::Scopes::parse(text).is_some() => {
                ("ok", String::new())
            }
            Some(_) => ("wrong", "contains a character that is not allowed in a scope".to_owned()),
            None => ("wrong", "has to be one string, its scopes separated by spaces".to_owned()),
        },
        "jti" => match value.as_str() {
            Some(text) if (1..=255).contains(&text.len()) => {
                let once = matches!(kind, Kind::IdJag | Kind::ClientAssertion | Kind::DpopProof);
                ("ok", if once { "good for one use".to_owned() } else { String::new() })
            }
            _ => ("wrong", "has to be a string of 1 to 255 bytes".to_owned()),
        },
        "client_id" if kind == Kind::IdJag => {
            let text = "the client's id at the audience; it has to authenticate there as this";
            match value.as_str() {
                Some(id) if !id.is_empty() => ("ok", text.to_owned()),
                _ => ("wrong", "has to be a non-empty string".to_owned()),
            }
        }
        "sub" => match value.as_str() {
            Some(text) if (1..=255).contains(&text.len()) => ("ok", String::new()),
            _ => ("wrong", "has to be a string of 1 to 255 bytes".to_owned()),
        },
        "txn" => ("note", "the `jti` of the ID-JAG that was redeemed for this token".to_owned()),
        "cnf" => match value.get("jkt").and_then(Value::as_str) {
            Some(_) => {
                ("note", "bound to this DPoP key: it cannot be used without that key".to_owned())
            }
            None => ("wrong", "has to carry `jkt`".to_owned()),
        },
        "nonce" if kind == Kind::LogoutToken => {
            ("wrong", "a logout token must not have it".to_owned())
        }
        "htu" | "htm" if kind == Kind::DpopProof => match value.as_str() {
            Some(_) => ("ok", "the request that this proof is for".to_owned()),
            None => ("wrong", "has to be a string".to_owned()),
        },
        "authorization_details" => ("note", "Passavant refuses tokens that carry it".to_owned()),
        _ => ("note", String::new()),
    }
}

fn time(kind: Kind, claims: &Claims, name: &str, at: i64, now: i64) -> (&'static str, String) {
    let skew = passavant_proto::time::SKEW;
    let distance =
        if at >= now { format!("{} s from now", at - now) } else { format!("{} s ago", now - at) };
    match name {
        "exp" if now - at >= skew => ("wrong", format!("expired {distance}")),
        "exp" => {
            let issued = claims.value("iat").and_then(Value::as_i64);
            let life = issued.map(|issued| at - issued);
            match (life, kind.longest()) {
                (Some(life), Some(longest)) if life > longest => (
                    "wrong",
                    format!("{distance}; it lives {life} s, and at most {longest} s are accepted"),
                ),
                (Some(life), _) => ("ok", format!("{distance}; it lives {life} s")),
                (None, _) => ("ok", distance),
            }
        }
        "iat" if kind == Kind::DpopProof && now - at > dpop::LONGEST_LIFETIME + skew => {
            ("wrong", format!("{distance}: a proof is made for each request"))
        }
        "iat" | "nbf" if at - now > skew => {
            ("wrong", format!("{distance}: compare the clocks of both machines"))
        }
        _ => ("ok", distance),
    }
}

fn audience(kind: Kind, value: &Value) -> (&'static str, String) {
    let list: Vec<&str> = match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => return ("wrong", "has to be a string, or an array of strings".to_owned()),
    };
    match (kind, list.as_slice()) {
        (_, []) => ("wrong", "is empty".to_owned()),
        (Kind::IdJag, [_]) => (
            "ok",
            "the issuer of the resource authorization server, never the MCP server".to_owned(),
        ),
        (Kind::ClientAssertion, [_]) => {
            ("ok", "has to be the issuer of the authorization server, alone".to_owned())
        }
        (Kind::AccessToken, [_]) => ("ok", "the MCP server; others have to refuse it".to_owned()),
        (Kind::IdJag | Kind::ClientAssertion | Kind::AccessToken, _) => {
            ("wrong", "has to name exactly one party".to_owned())
        }
        _ => ("ok", String::new()),
    }
}

fn resources(value: &Value) -> (&'static str, String) {
    let list: Vec<&str> = match value {
        Value::String(text) => vec![text],
        Value::Array(items) if !items.is_empty() => {
            items.iter().filter_map(Value::as_str).collect()
        }
        _ => return ("wrong", "has to be a string, or a non-empty array of strings".to_owned()),
    };
    for (i, text) in list.iter().enumerate() {
        match Resource::parse(text) {
            Err(error) => return ("wrong", format!("`{text}` {error}")),
            Ok(_) if list[..i].contains(text) => {
                return ("wrong", format!("`{text}` occurs twice"));
            }
            Ok(_) => {}
        }
    }
    ("ok", "the MCP server, as its protected-resource metadata spells it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(typ: &str, claims: &Value) -> Vec<Note> {
        let header = json!({"alg": "ES256", "typ": typ}).to_string();
        let header = Claims::parse(header.as_bytes()).unwrap();
        let claims = Claims::parse(claims.to_string().as_bytes()).unwrap();
        explain(Kind::of(&header, &claims), &header, &claims, 1000)
    }

    fn wrong(typ: &str, claims: &Value) -> Vec<String> {
        let notes = notes(typ, claims);
        notes.into_iter().filter(|n| n.verdict == "wrong").map(|n| n.name).collect()
    }

    #[test]
    fn each_rule_of_an_id_jag_is_named_where_it_is_broken() {
        let good = json!({"iss": "https://idp.example", "sub": "erin", "aud": "https://as.example",
                          "client_id": "agent", "jti": "1", "iat": 1000, "exp": 1120,
                          "resource": "https://mcp.example/mcp", "scope": "read"});
        assert!(wrong("oauth-id-jag+jwt", &good).is_empty());
        for (name, value) in [
            ("iss", json!("http://idp.example")),
            ("aud", json!(["https://as.example", "https://b.example"])),
            ("exp", json!(900)),
            ("exp", json!(2000)),
            ("iat", json!("1000")),
            ("resource", json!([])),
            ("resource", json!("https://mcp.example/#x")),
            ("scope", json!(["read"])),
            ("jti", json!(7)),
            ("client_id", json!("")),
        ] {
            let mut changed = good.clone();
            changed[name] = value;
            assert_eq!(wrong("oauth-id-jag+jwt", &changed), [name]);
        }
        let mut missing = good;
        missing.as_object_mut().unwrap().remove("client_id");
        assert_eq!(wrong("oauth-id-jag+jwt", &missing), ["client_id"]);
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |typ: &str, claims: Value| {
            let header = Claims::parse(json!({"typ": typ}).to_string().as_bytes()).unwrap();
            Kind::of(&header, &Claims::parse(claims.to_string().as_bytes()).unwrap())
        };
        assert!(kind("application/at+jwt", json!({})) == Kind::AccessToken);
        assert!(kind("JWT", json!({"nonce": "n"})) == Kind::IdToken);
        assert!(kind("JWT", json!({"iss": "a", "sub": "a"})) == Kind::ClientAssertion);
        assert!(kind("JWT", json!({"x": 1})) == Kind::Unknown);
    }
}
