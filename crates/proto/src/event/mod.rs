//! The closed list of audit events: what each may say, and the names it uses. The audit trail, its
//! documentation and exports are made from it. No decision depends on an event.

use serde::{Serialize, Serializer};
use std::borrow::Cow;

/// A closed list of words, each with its meaning.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal: $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[doc = $text] $variant,)*
        }

        impl $name {
            /// All words.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word as it is written.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The meaning, in words for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}
words! {
    /// What a row says besides the time, the person and the client.
    Detail {
        Account = "account": "the account that somebody was linked to",
        Actor = "actor": "who acts for the person, as the ID-JAG names it",
        Address = "address": "where the request came from",
        AnswerBytes = "answer_bytes": "size of the MCP server's answer",
        Arguments = "arguments": "arguments of a tool call, where the gateway is told to keep them",
        Audience = "audience": "the authorization server that an ID-JAG is for",
        By = "by": "the administrator, or the command, whose act it is",
        Call = "call": "id of a call at a gateway",
        CodeOf = "code_of": "the client that a code was issued to",
        Connections = "connections": "connections that named a group which is gone",
        Count = "count": "how many",
        More = "detail": "more about a refusal, or about a tool",
        Device = "device": "what a person's computer is called",
        DeviceAt = "device_at": "where a device asked for its code",
        Ended = "ended": "how the answer of an MCP server ended",
        Ends = "ends": "when a token ends, in seconds since 1970",
        Family = "family": "what the tokens of one sign-in have in common",
        Gateway = "gateway": "the client that reports for a gateway",
        Installation = "installation": "an enrolled computer",
        Issuer = "issuer": "the identity provider behind a person",
        Jti = "jti": "id of the token that was issued or revoked",
        Method = "method": "the HTTP method of a refused administrator, or the MCP method of a call",
        Ms = "ms": "how long a call took",
        Reason = "reason": "why it was refused: a word that begins with the part whose rule it was",
        Record = "record": "the record that an administrator's act is about",
        Refusals = "refusals": "refusals that were counted instead of written one by one",
        Repeated = "repeated": "a refresh was asked for again, since its answer was lost",
        RequestBytes = "request_bytes": "size of a request to an MCP server",
        RequestId = "request_id": "id of the HTTP request, in the log too",
        RequestedAudience = "requested_audience": "`audience` as it was asked for",
        Resource = "resource": "the MCP server",
        RasClientId = "ras_client_id": "the client's id at the authorization server of the MCP server",
        Role = "role": "an administrator's role",
        Rule = "rule": "the connection, or the rule of a gateway, that decided",
        Scope = "scope": "scopes that were granted",
        Session = "session": "the sign-in, `sid` of ID tokens",
        Signal = "signal": "the shared signal: the last part of its event's name",
        Status = "status": "HTTP status of an MCP server's answer; 0: there was none",
        Subject = "subject": "the person as their issuer names them",
        SubjectToken = "subject_token": "id of the token that an ID-JAG was asked for with",
        Target = "target": "the tool, prompt or resource of a call, or the path of a refused administrator",
        Token = "token": "id of the caller's access token",
        ToldAt = "told_at": "when a gateway told of it",
        Txn = "txn": "id of the ID-JAG behind a token: one word from the exchange to the tool call",
        Upstream = "upstream": "the identity provider in front, by its name here",
        WithIt = "with_it": "how many records went with one that was deleted",
    }
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

words! {
    /// What an administrator, or a command that acts as one, did to a record.
    Act {
        Create = "create": "made it",
        Replace = "replace": "wrote it anew",
        Change = "change": "changed it",
        SetGroups = "set_groups": "said which groups they are in",
        SetPassword = "set_password": "gave them another password",
        Recover = "recover": "made a link by which they get in once",
        AllowSignIn = "allow sign-in at": "let its people sign in with a browser",
        ForbidSignIn = "forbid sign-in at": "took that back",
        RotateSecret = "rotate_secret": "gave it another secret",
        Renew = "renew": "gave them another token",
        Disable = "disable": "switched it off",
        Enable = "enable": "switched it on",
        Check = "check": "looked whether it works",
        Link = "link": "linked a person of an upstream to a user",
        Unlink = "unlink": "took an account, or a user, away from a person of an issuer",
        Revoke = "revoke": "revoked it",
        Approve = "approve": "approved it as it is now",
        Rotate = "rotate": "made one that follows",
        Retire = "retire": "had another one sign in its place",
        Remove = "remove": "took it away at once",
        Delete = "delete": "deleted it",
    }
}

words! {
    /// The events of requests. Each event is one row.
    RequestEvent {
        Token = "token": "a request to the token endpoint whose grant is not known yet: refusals only",
        AuthorizationCode = "authorization_code": "a code was redeemed",
        DeviceCode = "device_code": "the code of a device was redeemed",
        RefreshToken = "refresh_token": "tokens were refreshed",
        TokenExchange = "token_exchange": "an ID-JAG was asked for",
        AssertionExchange = "assertion_exchange": "a SAML assertion was exchanged for a refresh token",
        JwtBearer = "jwt_bearer": "an ID-JAG was redeemed",
        Introspection = "introspect": "a token was asked about",
        EndedTokens = "ended_tokens": "a guard asked to be told of ended tokens: refusals only",
        Revocation = "revoke": "a token was revoked",
        PushedRequest = "pushed_request": "an authorization request was pushed",
        DeviceAuthorization = "device_authorization": "a device asked for a code",
        GatewayRecords = "gateway_records": "a gateway reported calls",
        Authorize = "authorize": "a code was issued to a browser",
        SignIn = "sign_in": "somebody signed in",
        PersonAdded = "person.added": "somebody of an upstream was added at their first sign-in",
        PersonChanged = "person.changed": "an upstream told something else of somebody: groups, address, names",
        Provisioning = "provision": "an upstream's provisioning was turned away: refusals only",
        ProvisionAdd = "provision.added": "an upstream's provisioning added somebody",
        ProvisionChange = "provision.changed": "it changed somebody: groups, address, names",
        ProvisionDisable = "provision.disabled": "it switched somebody off",
        ProvisionEnable = "provision.enabled": "it switched somebody on again",
        ProvisionRemove = "provision.removed": "it removed somebody",
        ProvisionGroup = "provision.group": "it added, changed or removed a group",
        ProvisionLink = "provision.linked": "somebody whom it added signed in for the first time",
        UpstreamCheck = "upstream_check": "an upstream was asked whether somebody is still there: refusals only",
        SignOut = "sign_out": "somebody signed out",
        LogoutNotice = "logout_notice": "an application was told that a session has ended, or could not be told",
        AccessEnded = "access_ended": "an identity provider said that somebody's access has ended",
        RevocationNotice = "revocation_notice": "an authorization server was told that somebody's access has ended, or could not be told",
        ClientCredentials = "client_credentials": "a client that listens to signals got a token for its stream",
        SignalStream = "signal_stream": "a client that listens made, changed or deleted its stream, or its stream was paused",
        SignalTold = "signal.told": "a client that listens was told of somebody, or did not take it",
        SignalHeard = "signal.heard": "another party told something of somebody, and their access ended, or nothing",
        CredentialAdded = "credential.added": "a person added a way to sign in: a passkey, one-time passwords, another password",
        CredentialRemoved = "credential.removed": "a person removed one",
        Enrol = "enrol": "a computer was enrolled",
        EnrolmentTokenUsed = "enrolment_token_used": "the token that enrolled it has served",
        RevokeInstallation = "revoke_installation": "a person revoked one of their computers",
        LinkAccount = "link_account": "a person of an issuer got an account",
        Registration = "registration": "a client registered itself",
        RegistrationUsed = "registration.used": "a person let it in",
        RegistrationForgotten = "registration.forgotten": "it was forgotten, unused",
        McpCall = "mcp_call": "a call of an MCP server's tool, as a gateway decided it",
        McpCallEnd = "mcp_call_end": "how a call ended that was told of before",
        McpTool = "mcp_tool": "a tool is new, changed or gone",
        McpOutcomesShed = "mcp_outcomes_shed": "a gateway counted what it could not write one by one",
        Administration = "admin": "an administrator was turned away",
        Restored = "admin.restored": "after a restore: every session, code and token has ended",
    }
}

/// What a row of the trail is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A request.
    Request(RequestEvent),
    /// An administrator's act on a kind of record.
    Admin(Act, &'static str),
    /// An act of `passavant guard`, which writes its own records.
    Guard(Act, &'static str),
}

impl From<RequestEvent> for Event {
    fn from(event: RequestEvent) -> Self {
        Self::Request(event)
    }
}

impl Event {
    /// The name in the audit trail.
    pub fn word(self) -> Cow<'static, str> {
        match self {
            Self::Request(event) => event.word().into(),
            Self::Admin(act, kind) => format!("admin.{} {kind}", act.word()).into(),
            Self::Guard(act, kind) => format!("guard.{} {kind}", act.word()).into(),
        }
    }
}

impl RequestEvent {
    /// What a row of this event may say besides the time, the person and the client.
    #[allow(clippy::too_many_lines, clippy::match_same_arms, reason = "a table")]
    pub const fn details(self) -> &'static [Detail] {
        match self {
            Self::Token => &[Detail::Address, Detail::More, Detail::Reason, Detail::RequestId],
            Self::AuthorizationCode => &[
                Detail::Address,
                Detail::CodeOf,
                Detail::Family,
                Detail::Issuer,
                Detail::Jti,
                Detail::Reason,
                Detail::RequestId,
                Detail::Resource,
                Detail::Scope,
                Detail::Session,
            ],
            Self::DeviceCode => &[
                Detail::Address,
                Detail::CodeOf,
                Detail::Family,
                Detail::Jti,
                Detail::Reason,
                Detail::RequestId,
                Detail::Scope,
                Detail::Session,
            ],
            Self::RefreshToken => &[
                Detail::Address,
                Detail::Issuer,
                Detail::Jti,
                Detail::Reason,
                Detail::Repeated,
                Detail::RequestId,
                Detail::Resource,
                Detail::Scope,
                Detail::Session,
            ],
            Self::AssertionExchange => &[
                Detail::Address,
                Detail::Family,
                Detail::Issuer,
                Detail::More,
                Detail::Reason,
                Detail::RequestId,
                Detail::Scope,
                Detail::Session,
                Detail::Subject,
            ],
            Self::TokenExchange => &[
                Detail::Address,
                Detail::Audience,
                Detail::More,
                Detail::Jti,
                Detail::RasClientId,
                Detail::Reason,
                Detail::RequestId,
                Detail::RequestedAudience,
                Detail::Resource,
                Detail::Rule,
                Detail::Scope,
                Detail::SubjectToken,
                Detail::Txn,
            ],
            Self::JwtBearer => &[
                Detail::Actor,
                Detail::Address,
                Detail::More,
                Detail::Issuer,
                Detail::Jti,
                Detail::Reason,
                Detail::RequestId,
                Detail::Resource,
                Detail::Scope,
                Detail::Subject,
                Detail::Txn,
            ],
            Self::Introspection => {
                &[Detail::Address, Detail::Issuer, Detail::Reason, Detail::RequestId, Detail::Jti]
            }
            Self::ClientCredentials => {
                &[Detail::Address, Detail::Jti, Detail::Reason, Detail::RequestId, Detail::Scope]
            }
            Self::SignalStream => {
                &[Detail::More, Detail::Reason, Detail::RequestId, Detail::Signal]
            }
            Self::SignalTold => {
                &[Detail::Count, Detail::Jti, Detail::More, Detail::Reason, Detail::Signal]
            }
            Self::SignalHeard => &[
                Detail::Address,
                Detail::Count,
                Detail::Issuer,
                Detail::Jti,
                Detail::More,
                Detail::Reason,
                Detail::RequestId,
                Detail::Signal,
                Detail::Subject,
            ],
            Self::EndedTokens => &[Detail::Address, Detail::Reason, Detail::RequestId],
            Self::Revocation => &[Detail::Address, Detail::Jti, Detail::Reason, Detail::RequestId],
            Self::PushedRequest => &[Detail::Address, Detail::Reason, Detail::RequestId],
            Self::DeviceAuthorization => &[Detail::Address, Detail::Reason, Detail::RequestId],
            Self::GatewayRecords => &[Detail::Address, Detail::Reason, Detail::RequestId],
            Self::Authorize => &[
                Detail::Address,
                Detail::More,
                Detail::DeviceAt,
                Detail::Device,
                Detail::Issuer,
                Detail::Reason,
                Detail::RequestId,
                Detail::Resource,
                Detail::Scope,
                Detail::Session,
            ],
            Self::SignIn => &[
                Detail::Address,
                Detail::More,
                Detail::Issuer,
                Detail::Reason,
                Detail::RequestId,
                Detail::Session,
                Detail::Subject,
            ],
            Self::LogoutNotice => &[Detail::Count, Detail::More, Detail::Reason, Detail::Session],
            Self::AccessEnded => &[
                Detail::Address,
                Detail::Count,
                Detail::Issuer,
                Detail::More,
                Detail::Reason,
                Detail::RequestId,
                Detail::Subject,
            ],
            Self::RevocationNotice => {
                &[Detail::Audience, Detail::Count, Detail::More, Detail::Reason]
            }
            Self::PersonAdded => &[Detail::Issuer, Detail::Subject],
            Self::PersonChanged => &[Detail::Issuer, Detail::More, Detail::Subject],
            Self::Provisioning => &[
                Detail::Address,
                Detail::More,
                Detail::Reason,
                Detail::RequestId,
                Detail::Upstream,
            ],
            Self::ProvisionAdd => {
                &[Detail::RequestId, Detail::Subject, Detail::Token, Detail::Upstream]
            }
            Self::ProvisionChange | Self::ProvisionDisable | Self::ProvisionEnable => {
                &[Detail::More, Detail::RequestId, Detail::Token, Detail::Upstream]
            }
            Self::ProvisionRemove => {
                &[Detail::Connections, Detail::RequestId, Detail::Token, Detail::Upstream]
            }
            Self::ProvisionGroup => &[
                Detail::Connections,
                Detail::Count,
                Detail::More,
                Detail::Record,
                Detail::RequestId,
                Detail::Token,
                Detail::Upstream,
            ],
            Self::ProvisionLink => &[Detail::Issuer, Detail::Subject],
            Self::UpstreamCheck => &[Detail::Issuer, Detail::More, Detail::Reason, Detail::Session],
            Self::SignOut => &[
                Detail::Address,
                Detail::Count,
                Detail::Issuer,
                Detail::More,
                Detail::Reason,
                Detail::RequestId,
                Detail::Session,
                Detail::Subject,
            ],
            Self::CredentialAdded | Self::CredentialRemoved => {
                &[Detail::Address, Detail::More, Detail::RequestId, Detail::Session]
            }
            Self::Enrol => &[
                Detail::Address,
                Detail::Device,
                Detail::Installation,
                Detail::Reason,
                Detail::RequestId,
            ],
            Self::EnrolmentTokenUsed => &[Detail::Jti],
            Self::RevokeInstallation => {
                &[Detail::Installation, Detail::Reason, Detail::RequestId, Detail::Address]
            }
            Self::LinkAccount => &[Detail::Issuer, Detail::Rule, Detail::Subject],
            Self::Registration => {
                &[Detail::Record, Detail::RequestId, Detail::Address, Detail::Reason]
            }
            Self::RegistrationUsed => &[Detail::Record, Detail::RequestId],
            Self::RegistrationForgotten => &[],
            Self::McpCall => &[
                Detail::Account,
                Detail::AnswerBytes,
                Detail::Arguments,
                Detail::Call,
                Detail::Ended,
                Detail::Gateway,
                Detail::Issuer,
                Detail::Method,
                Detail::Ms,
                Detail::RasClientId,
                Detail::Reason,
                Detail::RequestBytes,
                Detail::Resource,
                Detail::Rule,
                Detail::Status,
                Detail::Target,
                Detail::Token,
                Detail::ToldAt,
                Detail::Txn,
            ],
            Self::McpCallEnd => &[
                Detail::Account,
                Detail::AnswerBytes,
                Detail::Call,
                Detail::Ended,
                Detail::Gateway,
                Detail::Ms,
                Detail::RasClientId,
                Detail::Resource,
                Detail::Status,
                Detail::ToldAt,
            ],
            Self::McpTool => &[
                Detail::Account,
                Detail::Call,
                Detail::More,
                Detail::Gateway,
                Detail::RasClientId,
                Detail::Resource,
                Detail::Target,
                Detail::ToldAt,
            ],
            Self::McpOutcomesShed => &[
                Detail::Account,
                Detail::Call,
                Detail::Count,
                Detail::Gateway,
                Detail::RasClientId,
                Detail::Refusals,
                Detail::Resource,
                Detail::ToldAt,
            ],
            Self::Administration => &[
                Detail::Address,
                Detail::By,
                Detail::Method,
                Detail::Reason,
                Detail::RequestId,
                Detail::Target,
            ],
            Self::Restored => &[Detail::By],
        }
    }

    /// Which authorization servers write it.
    pub const fn place(self) -> &'static str {
        match self {
            Self::TokenExchange
            | Self::LogoutNotice
            | Self::RevocationNotice
            | Self::AssertionExchange
            | Self::PushedRequest
            | Self::DeviceAuthorization
            | Self::DeviceCode
            | Self::GatewayRecords
            | Self::PersonAdded
            | Self::PersonChanged
            | Self::Provisioning
            | Self::ProvisionAdd
            | Self::ProvisionChange
            | Self::ProvisionDisable
            | Self::ProvisionEnable
            | Self::ProvisionRemove
            | Self::ProvisionGroup
            | Self::ProvisionLink
            | Self::UpstreamCheck
            | Self::SignOut
            | Self::CredentialAdded
            | Self::CredentialRemoved
            | Self::Enrol
            | Self::EnrolmentTokenUsed
            | Self::RevokeInstallation => "IdP",
            Self::JwtBearer
            | Self::LinkAccount
            | Self::Registration
            | Self::RegistrationUsed
            | Self::RegistrationForgotten => "RAS",
            _ => "IdP, RAS",
        }
    }
}

/// What the row of an administrator's act may say.
const OF_ACTS: &[Detail] = &[
    Detail::By,
    Detail::Address,
    Detail::RequestId,
    Detail::Record,
    Detail::WithIt,
    Detail::Upstream,
    Detail::Connections,
    Detail::Role,
    Detail::Ends,
    Detail::Issuer,
    Detail::Subject,
    Detail::Resource,
    Detail::Target,
    Detail::More,
];

impl Event {
    /// What a row of this event may say.
    pub const fn details(self) -> &'static [Detail] {
        match self {
            Self::Request(event) => event.details(),
            Self::Admin(..) | Self::Guard(..) => OF_ACTS,
        }
    }
}

/// The documentation of the trail.
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    let row = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    text += "\n## Requests\n\n| event | what happened | at | says, where it is known |\n|---|---|---|---|\n";
    for event in RequestEvent::ALL {
        let details: Vec<_> = event.details().iter().map(|d| format!("`{}`", d.word())).collect();
        let word = format!("`{}`", event.word());
        text += &row(&[&word, event.text(), event.place(), &details.join(" ")]);
    }
    text += "\n## Acts of administrators\n\n\
             `admin.ACT KIND`, for instance `admin.disable user`; `guard.ACT KIND` where `passavant guard` wrote its own \
             records. KIND is a kind of record (`user`, `group`, `client`, `connection`, `resource`, `authorization server`, \
             `trusted issuer`, `upstream`, `account`, `client host`, `installation`, `administrator`, `signing key`, `tool`),\n\
             or `grant`: an ID-JAG, or what was issued for one.\n\n\
             | act | what the administrator did |\n|---|---|\n";
    for act in Act::ALL {
        text += &row(&[&format!("`{}`", act.word()), act.text()]);
    }
    let details: Vec<_> = OF_ACTS.iter().map(|d| format!("`{}`", d.word())).collect();
    text += &format!("\nThey say, where it is known: {}.\n", details.join(" "));
    text += "\n## What the names mean\n\n| name | meaning |\n|---|---|\n";
    for detail in Detail::ALL {
        text += &row(&[&format!("`{}`", detail.word()), detail.text()]);
    }
    text
}

const INTRODUCTION: &str = "# Audit events\n\n\
<!-- Made by `cargo run -p passavant-tests --example audit_events > docs/audit-events.md`; a test compares. -->\n\n\
Every decision is one row, written in the transaction of what it records: when (`at`), what (`event`), how it ended\n\
(`outcome`: `granted` or `refused`), who (`person`), by which client (`client`), and by name what else is known of it. Rows\n\
hold no token, code, password or secret. `passavant admin audit` reads them, newest first; nothing is decided by them.\n";

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.word())
    }
}
