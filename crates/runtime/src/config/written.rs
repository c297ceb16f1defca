//! The config as it is written. Unknown keys are refused.

use super::section::WrittenTls;
use crate::gateway::config::WrittenGateway;
use passavant_admin::types::{PresetName, ProofMethod};
use passavant_proto::{identifier::Issuer, jose::jwk::Algorithm};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::PathBuf,
};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) keys: WrittenKeys,
    #[serde(default)]
    pub(super) trusted_proxies: Vec<String>,
    #[serde(default)]
    pub(super) mounted_secrets: bool,
    pub(super) health: Option<WrittenHealth>,
    pub(super) admin: Option<WrittenAdmin>,
    pub(super) idp: Option<WrittenIdp>,
    #[serde(default)]
    pub(super) ras: Vec<WrittenRas>,
    #[serde(default)]
    pub(super) gateway: Vec<WrittenGateway>,
    #[serde(default)]
    pub(super) outbound: WrittenOutbound,
    #[serde(default)]
    pub(super) log: WrittenLog,
    #[serde(default)]
    pub(super) telemetry: WrittenTelemetry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenKeys {
    pub(super) file: Option<PathBuf>,
    pub(super) pkcs11: Option<WrittenPkcs11>,
}

/// The key-encryption key in a PKCS#11 token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenPkcs11 {
    pub(super) module: PathBuf,
    pub(super) token: String,
    pub(super) key: String,
    #[serde(default)]
    pub(super) earlier: Vec<String>,
    pub(super) pin_file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenHealth {
    pub(super) listen: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAdmin {
    pub(super) listen: String,
    pub(super) secret_file: PathBuf,
    pub(super) socket: Option<PathBuf>,
}

/// What both roles write about where they are.
pub(super) struct WrittenListener {
    pub(super) issuer: String,
    pub(super) listen: String,
    pub(super) database: String,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) tls: Option<WrittenTls>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) keep_refused_days: Option<NonZeroU32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenIdp {
    pub(super) issuer: String,
    pub(super) listen: String,
    pub(super) database: String,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) tls: Option<WrittenTls>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) failures_per_minute: Option<NonZeroU32>,
    pub(super) grants_per_minute: Option<NonZeroU32>,
    pub(super) keep_refused_days: Option<NonZeroU32>,
    pub(super) name: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) session_hours: Option<u32>,
    pub(super) upstream_check_minutes: Option<NonZeroU32>,
    pub(super) upstream_grace_minutes: Option<u32>,
    pub(super) allow_public_exchange: Option<bool>,
    pub(super) enrolment: Option<bool>,
    pub(super) device_authorization: Option<bool>,
    pub(super) show_refused: Option<bool>,
    #[serde(default)]
    pub(super) upstream: Vec<WrittenUpstream>,
}

/// An identity provider at which the company's people sign in: as the administration API has it, with
/// files for what is long or secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenUpstream {
    pub name: String,
    pub display_name: Option<String>,
    #[serde(default)]
    pub preset: PresetName,
    pub issuer: Option<Issuer>,
    pub client_id: Option<String>,
    /// The metadata of one that speaks SAML.
    pub metadata_file: Option<PathBuf>,
    pub sign_requests: Option<bool>,
    pub name_id_format: Option<String>,
    pub subject_attribute: Option<String>,
    pub proof: Option<ProofMethod>,
    pub proof_algorithm: Option<Algorithm>,
    pub client_secret_file: Option<PathBuf>,
    pub id_token_signing_alg: Option<Algorithm>,
    #[serde(default)]
    pub tenants: BTreeSet<String>,
    #[serde(default)]
    pub hosted_domains: BTreeSet<String>,
    #[serde(default)]
    pub domains: BTreeSet<String>,
    #[serde(default)]
    pub scopes: BTreeSet<String>,
    pub username_claim: Option<String>,
    pub groups_claim: Option<String>,
    pub asks_consent: Option<bool>,
    #[serde(default)]
    pub groups: BTreeMap<String, String>,
    #[serde(default)]
    pub acr_values: BTreeMap<String, String>,
    #[serde(default)]
    pub just_in_time: bool,
    pub external_id_is_subject: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRas {
    pub(super) name: String,
    pub(super) issuer: String,
    pub(super) listen: String,
    pub(super) database: String,
    pub(super) algorithm: Option<Algorithm>,
    pub(super) tls: Option<WrittenTls>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) failures_per_minute: Option<NonZeroU32>,
    pub(super) grants_per_minute: Option<NonZeroU32>,
    pub(super) introspections_per_minute: Option<NonZeroU32>,
    pub(super) keep_refused_days: Option<NonZeroU32>,
    pub(super) registration: Option<bool>,
    pub(super) client_documents: Option<bool>,
    pub(super) refresh_idle_hours: Option<u32>,
    pub(super) refresh_hours: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenOutbound {
    #[serde(default)]
    pub(super) extra_roots: Vec<PathBuf>,
}

/// How logs look.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenLog {
    /// `text` or `json`.
    #[serde(default)]
    pub format: LogFormat,
    /// A `tracing` filter; `warn,passavant=info` unless set.
    pub filter: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Where traces and metrics go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenTelemetry {
    /// Base URL of an OTLP collector (HTTP); none unless set.
    pub otlp_endpoint: Option<String>,
}
