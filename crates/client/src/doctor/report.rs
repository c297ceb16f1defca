//! The doctor's report: findings by stage, and the position where two strings differ.

use serde::Serialize;

/// A part of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The stored sign-in.
    Login,
    /// The IdP's documents.
    IdentityProvider,
    /// The MCP server's challenge and metadata.
    McpServer,
    /// The RAS's documents.
    AuthorizationServer,
    /// The registration of this client at the RAS.
    Client,
    /// From the sign-in to an ID-JAG.
    Exchange,
    /// From the ID-JAG to an access token.
    Redemption,
    /// The use of the token at the MCP server.
    Call,
}

impl Stage {
    /// Its name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::IdentityProvider => "identity provider",
            Self::McpServer => "MCP server",
            Self::AuthorizationServer => "authorization server",
            Self::Client => "client identity",
            Self::Exchange => "exchange",
            Self::Redemption => "redemption",
            Self::Call => "call",
        }
    }

    /// The exit code if the check ends in this stage.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Login => 10,
            Self::IdentityProvider => 11,
            Self::McpServer => 12,
            Self::AuthorizationServer => 13,
            Self::Client => 14,
            Self::Exchange => 15,
            Self::Redemption => 16,
            Self::Call => 17,
        }
    }
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As required.
    Ok,
    /// Worth knowing, but not a problem.
    Note,
    /// Prevents access.
    Wrong,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The stage.
    pub stage: Stage,
    /// The result.
    pub verdict: Verdict,
    /// What was checked, or what is wrong.
    pub what: String,
    /// What was found, if two strings are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Offset of the first byte where the two differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs_at: Option<usize>,
    /// The party that has to change something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub party: Option<String>,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The MCP server.
    pub url: String,
    /// The findings in order.
    pub findings: Vec<Finding>,
    /// Whether every step succeeded.
    pub works: bool,
    /// The stage that prevents access.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The result in one sentence.
    pub verdict: String,
}

/// Offset of the first byte where two strings differ.
pub(super) fn difference(a: &str, b: &str) -> Option<usize> {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (a != b).then_some(same)
}

/// The most likely kind of difference, in the terms of OAuth.
pub(super) fn name_difference(found: &str, expected: &str) -> &'static str {
    let slashless = |text: &str| text.strip_suffix('/').unwrap_or(text).to_owned();
    if slashless(found) == slashless(expected) {
        "a trailing slash"
    } else if found.eq_ignore_ascii_case(expected) {
        "upper and lower case"
    } else if found.replace("http://", "https://") == expected.replace("http://", "https://") {
        "http against https"
    } else if found.replace("localhost", "127.0.0.1") == expected.replace("localhost", "127.0.0.1")
    {
        "localhost against 127.0.0.1"
    } else {
        "another text"
    }
}
