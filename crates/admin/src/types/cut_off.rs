//! Cut-offs: what is ended at once, with all that came by way of it.

use passavant_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is to be cut off at the identity provider.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CutOffRequest {
    /// What it is.
    pub target: IdpCutOffTarget,
    /// Which one: a user name, the id of a client, an installation or a connection, the issuer of an
    /// authorization server, or the `jti` of an ID-JAG.
    pub name: String,
}

/// What can be cut off at the identity provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdpCutOffTarget {
    /// A person: signed out everywhere, and switched off.
    Person,
    /// A client: its tokens end, and it is switched off.
    Client,
    /// An installation: it is revoked.
    Installation,
    /// A connection: it is switched off, and what only it allowed ends.
    Connection,
    /// An authorization server: ID-JAGs for it end, and it is switched off.
    Server,
    /// One ID-JAG and what was issued for it.
    Grant,
}

/// What is to be cut off at an authorization server.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RasCutOffRequest {
    /// What it is.
    pub target: RasCutOffTarget,
    /// Which one: an account, the id of a client, a trusted issuer, or the `jti` of an access token or of
    /// the ID-JAG that it was issued for.
    pub name: String,
}

/// What can be cut off at an authorization server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RasCutOffTarget {
    /// An account: signed out everywhere, and switched off.
    Person,
    /// A client: its tokens end, and it is switched off.
    Client,
    /// A trusted issuer: what came by way of it ends, and it is trusted no more.
    Issuer,
    /// What was issued for one ID-JAG, or for one sign-in in the browser.
    Grant,
}

/// What was cut off, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CutOffTarget {
    /// A person, or an account.
    Person,
    /// A client.
    Client,
    /// An installation.
    Installation,
    /// A connection.
    Connection,
    /// An authorization server.
    Server,
    /// A trusted issuer.
    Issuer,
    /// One ID-JAG and what was issued for it.
    Grant,
}

impl From<IdpCutOffTarget> for CutOffTarget {
    fn from(target: IdpCutOffTarget) -> Self {
        match target {
            IdpCutOffTarget::Person => Self::Person,
            IdpCutOffTarget::Client => Self::Client,
            IdpCutOffTarget::Installation => Self::Installation,
            IdpCutOffTarget::Connection => Self::Connection,
            IdpCutOffTarget::Server => Self::Server,
            IdpCutOffTarget::Grant => Self::Grant,
        }
    }
}

impl From<RasCutOffTarget> for CutOffTarget {
    fn from(target: RasCutOffTarget) -> Self {
        match target {
            RasCutOffTarget::Person => Self::Person,
            RasCutOffTarget::Client => Self::Client,
            RasCutOffTarget::Issuer => Self::Issuer,
            RasCutOffTarget::Grant => Self::Grant,
        }
    }
}

impl From<CutOffRequest> for (CutOffTarget, String) {
    fn from(request: CutOffRequest) -> Self {
        (request.target.into(), request.name)
    }
}

impl From<RasCutOffRequest> for (CutOffTarget, String) {
    fn from(request: RasCutOffRequest) -> Self {
        (request.target.into(), request.name)
    }
}

/// How much ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutOffCounts {
    /// Sign-ins.
    pub sign_ins: i64,
    /// Refresh tokens.
    pub refresh_tokens: i64,
    /// Installations that get nothing any more: a person's for as long as that person is switched off.
    pub installations: i64,
    /// At the identity provider: ID-JAGs whose access tokens may be in use.
    pub id_jags: i64,
    /// At an authorization server: access tokens.
    pub access_tokens: i64,
}

/// What a cut-off would end now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CutOffPreview {
    /// What it is.
    pub target: CutOffTarget,
    /// The id of the record, or the `jti`.
    pub record: String,
    /// How much would end.
    pub ends: CutOffCounts,
    /// The authorization servers where tokens may be in use.
    pub servers: Vec<CutOffServerPreview>,
    /// At an authorization server: when the last access token would expire by itself, for MCP servers that
    /// do not ask about tokens. In seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub tokens_expire_by: Option<Timestamp>,
}

/// An authorization server where tokens may be in use.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CutOffServerPreview {
    /// Its issuer.
    pub issuer: String,
    /// How many ID-JAGs for it would end.
    pub id_jags: i64,
    /// Whether it would be told, as its metadata say now; absent if they cannot be read just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<bool>,
    /// When its last access token has expired by itself, if none lives longer than an hour, as is the case at
    /// an authorization server of Passavant; in seconds since 1970. Absent if no ID-JAG for it is on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub tokens_expire_by: Option<Timestamp>,
}

/// What a cut-off has ended until now, where and when.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CutOffReport {
    /// The id of the act's row in the audit trail.
    pub id: i64,
    /// When, in seconds since 1970.
    #[schema(value_type = i64)]
    pub at: Timestamp,
    /// Whose act it is.
    pub by: String,
    /// What was cut off.
    pub target: CutOffTarget,
    /// The id of the record, or the `jti`.
    pub record: String,
    /// How much has ended here.
    pub ended: CutOffCounts,
    /// It is still being decided which ID-JAGs end: more authorization servers may follow.
    pub deciding: bool,
    /// Nothing is being decided, and no authorization server is still to be told.
    pub done: bool,
    /// All that it ended is still on record. ID-JAGs are forgotten an hour after they have expired, when
    /// tokens have expired too.
    pub complete: bool,
    /// The authorization servers where something ended.
    pub servers: Vec<CutOffServerReport>,
    /// At an authorization server: when the last access token expires by itself, for MCP servers that do not
    /// ask about tokens. In seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub tokens_expire_by: Option<Timestamp>,
}

/// An authorization server where something ended.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CutOffServerReport {
    /// Its issuer.
    pub issuer: String,
    /// How it stands.
    pub state: CutOffServerState,
    /// When it acknowledged, or was given up, to the second: if it was told of several people, of the last
    /// one. In seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub at: Option<Timestamp>,
    /// How many people lose something there.
    pub people: i64,
    /// Of how many of them it is still to be told.
    pub waiting: i64,
    /// How many ID-JAGs for it ended.
    pub id_jags: i64,
    /// When its last access token has expired by itself, if none lives longer than an hour; in seconds since
    /// 1970. Absent if no ID-JAG for it is on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub tokens_expire_by: Option<Timestamp>,
}

/// How a cut-off stands at an authorization server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CutOffServerState {
    /// It is still to be told.
    Waiting,
    /// It was told, and acknowledged.
    Acknowledged,
    /// It did not answer for a day, and is not tried any more.
    GivenUp,
    /// It cannot be told: it has no endpoint for that, or none that takes single ID-JAGs. Its tokens expire.
    NotTold,
}
