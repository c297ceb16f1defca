//! The commands about upstreams.

use super::{ById, Gone, Listing};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What can be said of an upstream.
#[derive(Args)]
pub(in crate::admin) struct UpstreamOptions {
    /// Its name on the sign-in page
    #[arg(long, value_name = "TEXT")]
    pub(in crate::admin) display_name: Option<String>,
    /// How this identity provider proves itself there: by certificate at Entra, elsewhere by private_key_jwt unless
    /// given. `certificate` where there is one makes the one that follows, `next_certificate` uses that one from now on
    #[arg(long, value_name = "METHOD", value_parser = ["private_key_jwt", "certificate", "next_certificate", "client_secret_post", "client_secret_basic"])]
    pub(in crate::admin) proof: Option<String>,
    /// The algorithm of its key, for private_key_jwt: ES256, EdDSA or RS256
    #[arg(long, value_name = "ALG")]
    pub(in crate::admin) proof_algorithm: Option<String>,
    /// File with the client secret, for the methods that have one
    #[arg(long, value_name = "FILE")]
    pub(in crate::admin) client_secret_file: Option<PathBuf>,
    /// The algorithm of its ID tokens; RS256 unless given
    #[arg(long, value_name = "ALG")]
    pub(in crate::admin) id_token_signing_alg: Option<String>,
    /// E-mail domain of its people: they are sent there, and only addresses in it count as verified. All that are given
    /// replace those before; `-` for none, as with the lists below
    #[arg(long = "domain", value_name = "DOMAIN", allow_hyphen_values = true)]
    pub(in crate::admin) domains: Vec<String>,
    /// Tenant of Entra whose people may sign in, where the issuer stands for several
    #[arg(long = "tenant", value_name = "GUID", allow_hyphen_values = true)]
    pub(in crate::admin) tenants: Vec<String>,
    /// Domain of Google Workspace whose people may sign in
    #[arg(long = "hosted-domain", value_name = "DOMAIN", allow_hyphen_values = true)]
    pub(in crate::admin) hosted_domains: Vec<String>,
    /// Scopes to ask for beyond the usual ones, separated by spaces
    #[arg(long)]
    pub(in crate::admin) scopes: Option<String>,
    /// The claim or attribute that new people are named by
    #[arg(long, value_name = "CLAIM")]
    pub(in crate::admin) username_claim: Option<String>,
    /// The claim or attribute that holds groups
    #[arg(long, value_name = "CLAIM")]
    pub(in crate::admin) groups_claim: Option<String>,
    /// Whether somebody whom its provisioning added is found by `externalId` at the first sign-in: as the product has it
    /// unless given
    #[arg(long, value_name = "BOOL")]
    pub(in crate::admin) external_id_is_subject: Option<bool>,
    /// File with the metadata of an identity provider that speaks SAML 2.0, as it offers it to download
    #[arg(long = "metadata", value_name = "FILE")]
    pub(in crate::admin) metadata: Option<PathBuf>,
    /// Whether requests of SAML are signed: as its metadata wants unless given
    #[arg(long, value_name = "BOOL")]
    pub(in crate::admin) sign_requests: Option<bool>,
    /// Whether people are asked at each sign-in there if this identity provider may be told of them later on
    /// (prompt=consent); only where the product is generic unless given
    #[arg(long, value_name = "BOOL")]
    pub(in crate::admin) asks_consent: Option<bool>,
    /// Which group here a group there means; others mean nothing
    #[arg(long = "group", value_name = "THERE=HERE", allow_hyphen_values = true)]
    pub(in crate::admin) groups: Vec<String>,
    /// Which class here an authentication context class there means
    #[arg(long = "acr", value_name = "THERE=HERE", allow_hyphen_values = true)]
    pub(in crate::admin) acr_values: Vec<String>,
    /// What else is said of its side of SAML.
    #[arg(skip)]
    pub(in crate::admin) saml: serde_json::Map<String, serde_json::Value>,
}

#[derive(Subcommand)]
pub(in crate::admin) enum Upstream {
    /// Let people sign in at another identity provider
    Add {
        /// Its name, in the redirect URI and in commands
        name: String,
        /// Its issuer identifier, where it speaks OpenID Connect; for SAML, `--metadata` says what it is
        #[arg(
            long,
            value_name = "URL",
            required_unless_present = "metadata",
            conflicts_with = "metadata"
        )]
        issuer: Option<String>,
        /// This identity provider's client id there
        #[arg(
            long,
            value_name = "ID",
            allow_hyphen_values = true,
            required_unless_present = "metadata",
            conflicts_with = "metadata"
        )]
        client_id: Option<String>,
        /// The format of the name identifiers that people are known by, for SAML: persistent (unless given),
        /// unspecified, email, or a URI
        #[arg(long, value_name = "FORMAT", requires = "metadata")]
        name_id_format: Option<String>,
        /// The attribute that people are known by instead, for SAML; at Entra the object id unless given
        #[arg(long, value_name = "NAME", requires = "metadata")]
        subject_attribute: Option<String>,
        /// Which product it is
        #[arg(long, default_value = "generic", value_parser = ["generic", "entra", "google", "okta", "keycloak"])]
        preset: String,
        /// Add people at their first sign-in
        #[arg(long)]
        just_in_time: bool,
        #[command(flatten)]
        options: UpstreamOptions,
    },
    /// List them
    List(Listing),
    /// Show one, with the redirect URI to register there
    Show(ById),
    /// Change one; what is not named stays
    Change {
        #[arg(allow_hyphen_values = true)]
        name: String,
        /// This identity provider's client id there
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        client_id: Option<String>,
        /// Whether people are added at their first sign-in
        #[arg(long, value_name = "BOOL")]
        just_in_time: Option<bool>,
        #[command(flatten)]
        options: UpstreamOptions,
    },
    /// Look at every leg of one: who has to change what
    Check(ById),
    /// Whom its people are linked to
    Links(ById),
    /// Link one of its people to a user who is here already
    Link {
        /// The upstream
        name: String,
        /// User name or id
        #[arg(long, allow_hyphen_values = true)]
        user: String,
        /// What it knows the person by: `sub`, at Entra `oid`
        #[arg(long, allow_hyphen_values = true)]
        subject: String,
        /// The person's tenant, at Entra
        #[arg(long, value_name = "GUID")]
        tenant: Option<String>,
    },
    /// Take a user away from somebody they were linked to by mistake; the user's sign-ins end
    Unlink {
        /// The upstream
        name: String,
        /// What it knows the person by
        #[arg(long, allow_hyphen_values = true)]
        subject: String,
        /// The person's tenant, at Entra
        #[arg(long, value_name = "GUID")]
        tenant: Option<String>,
    },
    /// Make a token with which it provisions people and groups (SCIM); it is shown once
    Token {
        /// The upstream
        name: String,
        /// After how many days it ends
        #[arg(long, default_value_t = 366, value_name = "DAYS")]
        days: i64,
        /// Write it to this new file (mode 0600) instead of printing it
        #[arg(long, value_name = "FILE")]
        token_out: Option<PathBuf>,
    },
    /// The tokens with which it provisions, without the secrets
    Tokens(ById),
    /// Revoke such a token, at once
    RevokeToken {
        /// The upstream
        name: String,
        /// The token's id
        #[arg(allow_hyphen_values = true)]
        token: String,
    },
    /// Let nobody sign in there, and end the sign-ins that came that way
    Disable(ById),
    /// Let people sign in there again
    Enable(ById),
    /// Remove it and all its links
    Delete(Gone),
}
