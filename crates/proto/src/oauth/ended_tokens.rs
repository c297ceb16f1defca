//! The feed of ended tokens: what an authorization server of this project tells a guard before an MCP
//! server, by server-sent events, so that nobody has to ask about each token again and again.

use crate::time::Timestamp;
use serde_json::{Value, json};

/// The path of the endpoint below an issuer.
pub const PATH: &str = "/ended_tokens";
/// The name of its events.
pub const EVENT: &str = "ended_tokens";
/// How often there is an event at least, in seconds, also if nothing has ended.
pub const BEAT: u64 = 1;
/// After so long without an event a guard does not rely on the feed, in seconds.
pub const SILENCE: u64 = 3;
/// Largest event, in bytes.
pub const LARGEST: usize = 512 * 1024;
/// Most tokens in one event.
pub const MOST: usize = 5000;

/// How far a guard has heard: the `id` of an event, which it sends back as `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// What comes next.
    pub next: i64,
    /// When the authorization server read it, by its clock.
    pub read_at: Timestamp,
}

impl Position {
    /// Reads `NEXT.TIME`.
    pub fn parse(text: &str) -> Option<Self> {
        let (next, read_at) = text.split_once('.')?;
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        Some(Self { next: number(next)?, read_at: Timestamp(number(read_at)?) })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.next, self.read_at.0)
    }
}

/// What has ended. It may be told more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndedTokens {
    /// The `jti`s of access tokens.
    pub tokens: Vec<String>,
    /// Any token may have ended: each is to be asked about again.
    pub any: bool,
}

impl EndedTokens {
    /// Any token may have ended.
    pub const fn anything() -> Self {
        Self { tokens: Vec::new(), any: true }
    }

    /// The data of an event.
    pub fn to_value(&self) -> Value {
        json!({"any": self.any, "tokens": self.tokens})
    }

    /// Reads the data of an event. What is no list of tokens may mean any of them.
    pub fn parse(data: &str) -> Self {
        let any = Self::anything();
        let Ok(Value::Object(mut data)) = serde_json::from_str(data) else { return any };
        let Some(Value::Array(list)) = data.remove("tokens") else { return any };
        if list.len() > MOST || data.get("any").and_then(Value::as_bool) != Some(false) {
            return any;
        }
        let text = |value| if let Value::String(text) = value { Some(text) } else { None };
        match list.into_iter().map(text).collect() {
            Some(tokens) => Self { tokens, any: false },
            None => any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_may_mean_any_token() {
        let some = EndedTokens { tokens: vec!["a".to_owned(), "b".to_owned()], any: false };
        assert_eq!(EndedTokens::parse(&some.to_value().to_string()), some);
        let none = EndedTokens::default();
        assert_eq!(EndedTokens::parse(&none.to_value().to_string()), none);
        let many = json!({"any": false, "tokens": vec!["a"; MOST + 1]}).to_string();
        for data in [
            "",
            "[]",
            "{}",
            r#"{"tokens":[]}"#,
            r#"{"any":false}"#,
            r#"{"any":"false","tokens":[]}"#,
            r#"{"any":false,"tokens":["a",1]}"#,
            r#"{"any":false,"tokens":{"a":1}}"#,
            r#"{"any":true,"tokens":["a"]}"#,
            many.as_str(),
        ] {
            assert!(EndedTokens::parse(data).any, "{data:.40}");
        }
    }

    #[test]
    fn a_position_is_two_numbers() {
        let position = Position { next: 7, read_at: Timestamp(1_700_000_000) };
        assert_eq!(Position::parse(&position.to_string()), Some(position));
        for text in ["", "7", "7.", ".7", "-1.7", "7.7.7", "7.a", "99999999999999999999.1"] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
