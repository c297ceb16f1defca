//! What the doctor says: findings by stage, and where two texts differ.

use serde::Serialize;

/// Part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The sign-in that is kept.
    Login,
    /// The IdP's documents.
    IdentityProvider,
    /// The MCP server's challenge and metadata.
    McpServer,
    /// The RAS's documents.
    AuthorizationServer,
    /// Who this client is at the RAS.
    Client,
    /// Sign-in to ID-JAG.
    Exchange,
    /// ID-JAG to access token.
    Redemption,
    /// The token at the MCP server.
    Call,
}

impl Stage {
    /// What people call it.
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

    /// Exit code of a walk that ends in this stage.
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

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it has to be.
    Ok,
    /// Worth knowing; stands in nobody's way.
    Note,
    /// In the way.
    Wrong,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where.
    pub stage: Stage,
    /// How it came out.
    pub verdict: Verdict,
    /// What was checked, or what is wrong.
    pub what: String,
    /// What was found, where two texts are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What it has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The first byte where the two differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs_at: Option<usize>,
    /// Who has to change something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub party: Option<String>,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The MCP server.
    pub url: String,
    /// The checks in order.
    pub findings: Vec<Finding>,
    /// Whether the walk came to its end.
    pub works: bool,
    /// The stage that stands in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// In one sentence.
    pub verdict: String,
}

/// The first byte where two texts differ.
pub(super) fn difference(a: &str, b: &str) -> Option<usize> {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (a != b).then_some(same)
}

/// What the difference most likely is, in the words of this field.
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
