//! The company's own identity provider in front of which ours stands: how it is registered, and
//! what its ID tokens say about a person.

use crate::{
    identifier::{Issuer, SubjectIssuer},
    jose::claims::Claims,
    jose::jwk::Algorithm,
    oidc::authentication::Authentication,
    others_text::is_shown,
    saml::{SamlProvider, SamlSubject},
    time::{SKEW, Timestamp},
    xaa::trust::SubjectLink,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
};

/// The products whose habits are known; the others follow OpenID Connect Core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// OpenID Connect as it is written.
    #[default]
    Generic,
    /// Microsoft Entra ID, tokens of version 2.
    Entra,
    /// Google Workspace.
    Google,
    /// Okta.
    Okta,
    /// Keycloak.
    Keycloak,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 5] =
        [Self::Generic, Self::Entra, Self::Google, Self::Okta, Self::Keycloak];

    /// Its name in commands and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Entra => "entra",
            Self::Google => "google",
            Self::Okta => "okta",
            Self::Keycloak => "keycloak",
        }
    }

    /// The preset of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// Whether an access to the person while they are away has to be asked for with the scope
    /// `offline_access`. Keycloak gives a refresh token anyway, which ends with the person's session
    /// there; Google has a parameter of its own.
    pub const fn asks_for_offline_access(self) -> bool {
        matches!(self, Self::Entra | Self::Okta)
    }

    /// Whether `prompt=consent` is needed for a refresh token, unless an administrator says otherwise.
    pub const fn asks_consent(self) -> bool {
        matches!(self, Self::Generic)
    }

    /// Whether it gives a refresh token at the first consent alone: that one serves all sessions of
    /// the person.
    pub const fn gives_once(self) -> bool {
        matches!(self, Self::Google)
    }

    /// Whether claims that an ID token leaves out are at its `UserInfo` endpoint. That of Entra tells
    /// nothing more.
    pub const fn has_user_info(self) -> bool {
        !matches!(self, Self::Entra)
    }

    /// The audience of client assertions: Entra and Okta document their token endpoint, the others
    /// take the issuer (RFC 7523bis).
    pub const fn asserts_to_token_endpoint(self) -> bool {
        matches!(self, Self::Entra | Self::Okta)
    }

    /// Whether the `externalId` that it provisions people with (SCIM) is the subject that they sign in
    /// with. At Okta it is by default; at Entra it is where the object id is mapped to it, and the
    /// default there can be no object id.
    pub const fn provisions_subject(self) -> bool {
        matches!(self, Self::Entra | Self::Okta)
    }

    /// Whether it has groups in its tokens at all.
    pub const fn has_groups(self) -> bool {
        !matches!(self, Self::Google)
    }
}

/// How we prove ourselves at an upstream. What is secret is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamAuthentication {
    /// `private_key_jwt` with a signing key of ours, which the upstream reads at our `jwks_uri`.
    /// `None`: the key that signs by default.
    PrivateKeyJwt(Option<Algorithm>),
    /// `private_key_jwt` with PS256, by an X.509 certificate that is uploaded there.
    Certificate {
        /// The certificate, DER in base64.
        certificate: String,
        /// Its private key, sealed PKCS#8.
        sealed_key: String,
        /// The certificate that follows it, and its key: it is uploaded there before it is used.
        next: Option<(String, String)>,
    },
    /// A client secret in the form (`client_secret_post`), sealed.
    SecretPost(String),
    /// A client secret by HTTP Basic (`client_secret_basic`), sealed.
    SecretBasic(String),
}

/// An identity provider at which the company's people sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamProvider {
    /// Its name in commands and in its redirect URI.
    pub name: String,
    /// Its name on the sign-in page.
    pub display_name: String,
    /// Which product it is.
    pub preset: Preset,
    /// What it speaks.
    pub protocol: UpstreamProtocol,
    /// How we prove ourselves there; what signs requests, where it speaks SAML.
    pub authentication: UpstreamAuthentication,
    /// E-mail domains whose people are sent there.
    pub domains: BTreeSet<String>,
    /// The claim or attribute that new people are named by; `None`: the preset's.
    pub username_claim: Option<String>,
    /// The claim or attribute that holds groups; `None`: `groups`.
    pub groups_claim: Option<String>,
    /// Which of our groups a group of the upstream means. A group that is not here means nothing.
    pub groups: BTreeMap<String, String>,
    /// Which of our classes a class of the upstream means: an `acr` (`acrs` of Entra), or an
    /// authentication context class of SAML. A class that is not here means nothing.
    pub acr_values: BTreeMap<String, String>,
    /// Whether a person is added when they sign in for the first time.
    pub just_in_time: bool,
    /// Whether somebody who was provisioned by this upstream (SCIM) and signs in for the first time
    /// is found by `externalId`, which then has to be the subject there; `None`: as the preset has it.
    pub external_id_is_subject: Option<bool>,
    /// Switched off by an administrator.
    pub disabled: bool,
}

/// What an upstream speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// OpenID Connect.
    OpenId(OpenIdProvider),
    /// SAML 2.0.
    Saml(SamlProvider),
}

/// An upstream that speaks OpenID Connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIdProvider {
    /// Its issuer identifier. For several tenants of Entra, the issuer that stands for all of them
    /// (`…/organizations/v2.0`).
    pub issuer: Issuer,
    /// The tenants whose people may sign in, if it has several: GUIDs.
    pub tenants: BTreeSet<String>,
    /// Values that the `hd` claim of Google may have.
    pub hosted_domains: BTreeSet<String>,
    /// Our client id there.
    pub client_id: String,
    /// The algorithm of its ID tokens.
    pub algorithm: Algorithm,
    /// Scopes to ask for beyond those of the preset.
    pub scopes: BTreeSet<String>,
    /// Whether people are asked at each sign-in if we may be told of them later on
    /// (`prompt=consent`). OpenID Connect Core 11 makes it a condition of a refresh token; several
    /// products do without it.
    pub asks_consent: bool,
}

/// Where an upstream provisions people and groups (SCIM 2.0, RFC 7644), below the issuer.
pub fn provisioning_path(upstream: &str) -> String {
    format!("/scim/{upstream}/v2")
}

impl UpstreamProvider {
    /// Whether somebody who was provisioned is found by `externalId` at their first sign-in. A name
    /// identifier of SAML is not what a product provisions people with, unless an administrator says so.
    pub fn links_external_id(&self) -> bool {
        let known = self.preset.provisions_subject() && self.open_id().is_some();
        self.external_id_is_subject.unwrap_or(known)
    }

    /// Who names its people.
    pub fn issuer(&self) -> SubjectIssuer {
        match &self.protocol {
            UpstreamProtocol::OpenId(open_id) => SubjectIssuer::from(&open_id.issuer),
            UpstreamProtocol::Saml(saml) => saml.entity_id.clone(),
        }
    }

    /// The same upstream as one of OpenID Connect, if it speaks that.
    pub fn open_id(&self) -> Option<OpenIdUpstream<'_>> {
        match &self.protocol {
            UpstreamProtocol::OpenId(open_id) => Some(OpenIdUpstream { record: self, open_id }),
            UpstreamProtocol::Saml(_) => None,
        }
    }

    /// Its side of SAML, if it speaks that.
    pub fn saml(&self) -> Option<&SamlProvider> {
        match &self.protocol {
            UpstreamProtocol::OpenId(_) => None,
            UpstreamProtocol::Saml(saml) => Some(saml),
        }
    }
}

/// An upstream that is known to speak OpenID Connect.
#[derive(Clone, Copy, Debug)]
pub struct OpenIdUpstream<'a> {
    /// Its record.
    pub record: &'a UpstreamProvider,
    /// Its side of OpenID Connect.
    pub open_id: &'a OpenIdProvider,
}

impl Deref for OpenIdUpstream<'_> {
    type Target = UpstreamProvider;

    fn deref(&self) -> &UpstreamProvider {
        self.record
    }
}

impl OpenIdProvider {
    /// Whether it stands for several tenants, of which some are let in.
    pub fn has_tenants(&self) -> bool {
        !self.tenants.is_empty() && is_for_all_tenants(&self.issuer)
    }
}

/// Why a verified ID token identifies nobody here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// A claim that the person is known by is missing or malformed.
    #[error("the `{0}` claim is missing, or not a text of 1 to 255 characters")]
    Claim(&'static str),
    /// An attribute that the person is known by is missing or malformed.
    #[error("the attribute `{0}` is missing, or not one text of 1 to 255 characters")]
    Attribute(String),
    /// The name identifier is none that people are known by.
    #[error(
        "the name identifier is of the format `{0}`, which people of this upstream are not known by"
    )]
    NameId(String),
    /// The tenant is not listed.
    #[error("the tenant `{0}` is not one of those that may sign in")]
    Tenant(String),
    /// The `hd` claim is not listed, or absent: a private account.
    #[error("the account belongs to {0}, not to one of the hosted domains")]
    HostedDomain(String),
    /// The person is in more groups than the upstream puts into a token.
    #[error("the person is in more groups than it puts into a token")]
    GroupOverage,
    /// The claim that holds groups is no list of texts.
    #[error("the claim with the groups is not a list of texts, or longer than 1,000")]
    Groups,
}

impl Unidentified {
    /// The reason in the audit trail.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Claim(_) | Self::Attribute(_) | Self::NameId(_) => "sign_in.claim",
            Self::Tenant(_) => "sign_in.tenant",
            Self::HostedDomain(_) => "sign_in.hosted_domain",
            Self::GroupOverage => "sign_in.group_overage",
            Self::Groups => "sign_in.groups",
        }
    }

    /// What the person reads, with whom to tell.
    pub const fn told(&self) -> &'static str {
        match self {
            Self::Claim(_) | Self::Attribute(_) | Self::NameId(_) => {
                "Your company's identity provider did not say who you are in a way that can be used here. Tell IT."
            }
            Self::Tenant(_) => {
                "Your organization is not one of those whose people may sign in here. Ask IT."
            }
            Self::HostedDomain(_) => {
                "That is not an account of your company. Sign out of it there, or choose your company's account."
            }
            Self::GroupOverage => {
                "You are in more groups than your company's identity provider tells us of. IT has to change what it \
                 sends: only groups that are assigned to this application, or application roles."
            }
            Self::Groups => {
                "Your company's identity provider tells your groups in a way that cannot be read here. Tell IT."
            }
        }
    }
}

/// A person as an upstream describes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamPerson {
    /// What they are known by: never an e-mail address or a name.
    pub link: SubjectLink,
    /// The name for a new user.
    pub username: Option<String>,
    /// Their e-mail address.
    pub email: Option<String>,
    /// Whether the upstream vouches for the address.
    pub email_verified: bool,
    /// Display name.
    pub display_name: Option<String>,
    /// Given name.
    pub given_name: Option<String>,
    /// Family name.
    pub family_name: Option<String>,
    /// Our groups that their groups there mean; `None` if the token says nothing about groups.
    pub groups: Option<BTreeSet<String>>,
    /// Their name identifier, where the upstream speaks SAML.
    pub saml_subject: Option<SamlSubject>,
    /// How and when they signed in.
    pub authentication: Authentication,
}

/// Claims that are taken from the ID token alone, whatever an administrator names.
const SIGNED: [&str; 13] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "acr",
    "acrs",
    "amr",
    "auth_time",
    "sid",
    "session_expiry",
    "email",
    "email_verified",
];

/// Longest name, address or group of an upstream that is kept, in bytes.
const LONGEST: usize = 255;
/// Maximum number of groups in a token.
const MOST_GROUPS: usize = 1000;

/// Whether a text is one address, which every reader takes for the same one.
pub fn is_address(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_graphic()) && text.matches('@').count() == 1;
    plain
        && text
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

/// A text that can be shown and stored as it is.
fn plain(claims: &Claims, name: &str) -> Option<String> {
    let text = claims.value(name)?.as_str()?.trim();
    let fits = !text.is_empty() && text.len() <= LONGEST && text.chars().all(is_shown);
    fits.then(|| text.to_owned())
}

/// An identifier, byte for byte.
fn identifier(claims: &Claims, name: &'static str) -> Result<String, Unidentified> {
    let text = claims.required_id(name, LONGEST);
    text.map(str::to_owned).map_err(|_| Unidentified::Claim(name))
}

impl UpstreamProvider {
    /// Whether people with this address are sent there.
    pub fn takes(&self, email: &str) -> bool {
        let domain = email.rsplit_once('@').map(|(_, domain)| domain);
        domain.is_some_and(|domain| self.domains.iter().any(|own| own.eq_ignore_ascii_case(domain)))
    }

    /// The groups that this upstream decides on: those that some group of it means.
    pub fn decides_on(&self) -> BTreeSet<String> {
        self.groups.values().cloned().collect()
    }

    /// The classes to ask the upstream for, where an application asks for these of ours.
    pub fn acr_values_there(&self, ours: &[String]) -> Vec<String> {
        let there = |own: &String| {
            let meaning = self.acr_values.iter().filter(move |(_, means)| **means == *own);
            meaning.map(|(there, _)| there.clone()).collect::<Vec<_>>()
        };
        ours.iter().flat_map(there).collect()
    }

    /// The memberships after a sign-in, of the groups that this upstream decides on; `None` if they
    /// stay as they are. Without the claim there are none, except at Entra, which leaves it out for
    /// reasons of its own.
    pub fn memberships(&self, person: &UpstreamPerson) -> Option<BTreeSet<String>> {
        let absent_is_none = !self.groups.is_empty() && self.preset != Preset::Entra;
        person.groups.clone().or_else(|| absent_is_none.then(BTreeSet::new))
    }
}

impl OpenIdUpstream<'_> {
    /// The scope to ask for.
    pub fn scope(&self, offered: &[String]) -> String {
        let mut scopes = vec!["openid", "profile", "email"];
        let offline = self.preset.asks_for_offline_access()
            || (self.preset == Preset::Generic && offered.iter().any(|s| s == "offline_access"));
        scopes.extend(offline.then_some("offline_access"));
        for scope in &self.open_id.scopes {
            if !scopes.contains(&scope.as_str()) {
                scopes.push(scope);
            }
        }
        scopes.join(" ")
    }

    /// The claims that [`Self::identify`] would use, and that are not among these.
    pub fn lacks(&self, claims: &Claims) -> bool {
        let named = match (self.username_claim.as_deref(), self.preset) {
            (Some(claim), _) => claims.value(claim).is_some(),
            (None, Preset::Google) => claims.value("email").is_some(),
            (None, _) => claims.value("preferred_username").is_some(),
        };
        let groups = self.groups_claim.as_deref().unwrap_or("groups");
        !named || (!self.groups.is_empty() && claims.value(groups).is_none())
    }

    /// What `UserInfo` may add to an ID token: names, groups, and an address with whether it is
    /// verified, if the ID token has none. How and when somebody signed in, who they are, and until
    /// when is said by what is signed alone.
    pub fn completes(&self, claims: &Claims) -> Vec<&str> {
        let mut names = vec!["preferred_username", "name", "given_name", "family_name"];
        names.push(self.groups_claim.as_deref().unwrap_or("groups"));
        names.extend(self.username_claim.as_deref());
        names.retain(|name| !SIGNED.contains(name));
        if claims.value("email").is_none() && claims.value("email_verified").is_none() {
            names.extend(["email", "email_verified"]);
        }
        names
    }

    /// Who an ID token is about. The token was verified: signature, issuer, audience, nonce, times.
    pub fn identify(
        &self,
        claims: &Claims,
        issuer: &Issuer,
    ) -> Result<UpstreamPerson, Unidentified> {
        let (tenant, subject) = match self.preset {
            // `sub` is another one for each client id there; a guest has one `oid` in each tenant.
            Preset::Entra => {
                let tenant = identifier(claims, "tid")?;
                let listed =
                    self.open_id.tenants.is_empty() || self.open_id.tenants.contains(&tenant);
                // The token is of the tenant that it names: its issuer says the same.
                if !listed || !issuer.as_str().split('/').any(|part| part == tenant) {
                    return Err(Unidentified::Tenant(tenant));
                }
                (Some(tenant), identifier(claims, "oid")?)
            }
            _ => (None, identifier(claims, "sub")?),
        };
        if self.preset == Preset::Google && !self.open_id.hosted_domains.is_empty() {
            let domain = plain(claims, "hd");
            let listed = |domain: &String| {
                self.open_id.hosted_domains.iter().any(|own| own.eq_ignore_ascii_case(domain))
            };
            if !domain.as_ref().is_some_and(listed) {
                let whose =
                    domain.map_or("nobody's domain".to_owned(), |domain| format!("`{domain}`"));
                return Err(Unidentified::HostedDomain(whose));
            }
        }
        let email = plain(claims, "email").filter(|email| is_address(email));
        let email_verified = email.is_some() && self.vouches_for_email(claims);
        let own_name = self.username_claim.as_deref();
        let username = match (own_name, self.preset) {
            (Some(claim), _) => plain(claims, claim),
            (None, Preset::Google) => email.clone(),
            (None, _) => plain(claims, "preferred_username").or_else(|| email.clone()),
        };
        Ok(UpstreamPerson {
            link: SubjectLink { issuer: issuer.into(), tenant, subject },
            username,
            email,
            email_verified,
            display_name: plain(claims, "name"),
            given_name: plain(claims, "given_name"),
            family_name: plain(claims, "family_name"),
            groups: self.groups_of(claims)?,
            saml_subject: None,
            authentication: self.authentication_of(claims, issuer),
        })
    }

    fn vouches_for_email(&self, claims: &Claims) -> bool {
        match self.preset {
            // Addresses of Entra are whatever an administrator of the tenant wrote, unless the tenant
            // has proved that the domain is its own.
            Preset::Entra => claims
                .value("xms_edov")
                .is_some_and(|said| *said == true || *said == 1 || *said == "1" || *said == "true"),
            _ => claims.value("email_verified") == Some(&Value::Bool(true)),
        }
    }

    fn groups_of(&self, claims: &Claims) -> Result<Option<BTreeSet<String>>, Unidentified> {
        if self.groups.is_empty() {
            return Ok(None);
        }
        let claim = self.groups_claim.as_deref().unwrap_or("groups");
        let Some(said) = claims.value(claim) else {
            // Entra leaves the groups out where there are too many, and says where they are.
            let elsewhere =
                claims.value("_claim_names").and_then(|names| names.get(claim)).is_some();
            let has_some = claims.value("hasgroups") == Some(&Value::Bool(true));
            let overage = elsewhere || (has_some && claim == "groups");
            return if overage { Err(Unidentified::GroupOverage) } else { Ok(None) };
        };
        let items = match said {
            Value::String(one) => {
                return Ok(Some(self.groups.get(one).cloned().into_iter().collect()));
            }
            Value::Array(items) if items.len() <= MOST_GROUPS => items,
            _ => return Err(Unidentified::Groups),
        };
        let mut groups = BTreeSet::new();
        for item in items {
            let group = item.as_str().ok_or(Unidentified::Groups)?;
            groups.extend(self.groups.get(group).cloned());
        }
        Ok(Some(groups))
    }

    fn authentication_of(&self, claims: &Claims, issuer: &Issuer) -> Authentication {
        let said = Authentication::said(claims, issuer);
        let classes: Vec<&str> = match (self.preset, claims.value("acrs")) {
            (Preset::Entra, Some(Value::Array(classes))) => {
                classes.iter().filter_map(Value::as_str).collect()
            }
            (Preset::Entra, Some(Value::String(class))) => vec![class],
            _ => vec![said.acr.as_str()],
        };
        // Of several classes the first one that means something here. One that an administrator did
        // not map means nothing: it may be the name of what another upstream reaches.
        let mapped = classes.iter().find_map(|class| self.acr_values.get(*class));
        Authentication { acr: mapped.cloned().unwrap_or_default(), ..said }
    }
}

impl Authentication {
    /// How and when a person signed in, as an ID token says it. A missing or malformed `auth_time`
    /// counts as the epoch, so that checks for a fresh sign-in fail.
    pub fn said(claims: &Claims, issuer: &Issuer) -> Self {
        let amr = claims.optional_strings("amr").ok().flatten().unwrap_or_default();
        let amr = amr
            .into_iter()
            .filter(|method| method.len() <= 64 && method.chars().all(is_shown))
            .take(16);
        // A time that is yet to come was not told: every sign-in would seem recent.
        let issued = claims.optional_time("iat").ok().flatten().unwrap_or(Timestamp(0));
        let auth_time = claims.optional_time("auth_time").ok().flatten();
        let auth_time = auth_time.filter(|at| at.since(issued) <= SKEW);
        let acr = claims.optional_str("acr").ok().flatten().unwrap_or_default();
        Self {
            auth_time: auth_time.unwrap_or(Timestamp(0)),
            acr: acr.to_owned(),
            amr: amr.map(str::to_owned).collect(),
            issuer: Some(issuer.into()),
        }
    }
}

/// The issuer of one tenant, where `issuer` stands for all of them: Entra writes the tenant in place
/// of `organizations` or `common`.
pub fn issuer_of_tenant(issuer: &Issuer, tenant: &str) -> Option<Issuer> {
    let is_guid = tenant.len() == 36
        && tenant.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        });
    if !is_guid {
        return None;
    }
    Issuer::parse(&with_tenant(issuer, tenant)?).ok()
}

/// The issuer that the discovery document of all tenants names.
pub fn template_of(issuer: &Issuer) -> Option<String> {
    with_tenant(issuer, "{tenantid}")
}

fn with_tenant(issuer: &Issuer, tenant: &str) -> Option<String> {
    let parts: Vec<&str> = issuer.as_str().split('/').collect();
    let at = parts.iter().position(|part| matches!(*part, "organizations" | "common"))?;
    let with: Vec<&str> =
        parts.iter().enumerate().map(|(i, part)| if i == at { tenant } else { part }).collect();
    Some(with.join("/"))
}

/// Whether an issuer stands for the people of every tenant.
pub fn is_for_all_tenants(issuer: &Issuer) -> bool {
    let all = |part: &str| matches!(part, "organizations" | "common" | "consumers");
    issuer.as_str().contains("{tenantid}") || issuer.as_str().split('/').any(all)
}
