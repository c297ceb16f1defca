//! Which issuers a RAS trusts, and the accounts of their people.

use crate::{
    identifier::{Issuer, SubjectIssuer},
    jose::jwk::Algorithm,
};

/// How a RAS resolves the subject of an ID-JAG to one of its accounts (ID-JAG draft section 9.6).
/// The link is always `iss` + `tenant` + `sub`; these settings say what happens if there is no link
/// yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountResolution {
    /// Create an account for a subject that is seen for the first time.
    pub just_in_time: bool,
    /// Link an existing account by `email`, only for addresses in these domains, which the issuer
    /// owns according to the administrator. Empty: never.
    pub email_domains: Vec<String>,
}

impl AccountResolution {
    /// Whether `email` may link an existing account.
    pub fn links_by(&self, email: &str) -> bool {
        let plain = email.bytes().all(|b| b.is_ascii_graphic()) && email.matches('@').count() == 1;
        plain
            && email.rsplit_once('@').is_some_and(|(local, domain)| {
                !local.is_empty()
                    && self.email_domains.iter().any(|own| own.eq_ignore_ascii_case(domain))
            })
    }
}

/// How people of an issuer sign in here without cross-app access: at the issuer, where this
/// authorization server is registered as a relying party that authenticates with `private_key_jwt`
/// by its published keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InteractiveSignIn {
    /// This authorization server's client id at the issuer.
    pub client_id: String,
    /// E-mail domains whose people are sent to this issuer, if there are several issuers.
    pub domains: Vec<String>,
}

impl InteractiveSignIn {
    /// Whether people with this address are sent to this issuer.
    pub fn takes(&self, email: &str) -> bool {
        let domain = email.rsplit_once('@').map(|(_, domain)| domain);
        domain.is_some_and(|domain| self.domains.iter().any(|own| own.eq_ignore_ascii_case(domain)))
    }
}

/// An IdP whose ID-JAGs a RAS accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// Its issuer identifier.
    pub issuer: Issuer,
    /// The URL of its keys; `None`: found in its discovery document.
    pub jwks_uri: Option<String>,
    /// The one algorithm it signs with.
    pub algorithm: Algorithm,
    /// Value its `tenant` claim must have; `None` for a single-tenant issuer.
    pub tenant: Option<String>,
    /// Value its `aud_tenant` claim must have, which is its name for our own tenant; `None` if it
    /// has no such claim.
    pub audience_tenant: Option<String>,
    /// How its people get accounts here.
    pub accounts: AccountResolution,
    /// Whether an ID-JAG of this issuer may be presented again until it expires. Off unless an
    /// administrator relaxes it (section 4.4 of the ID-JAG draft allows it, section 7.4.2 of MCP
    /// Enterprise-Managed Authorization does not).
    pub allow_reuse: bool,
    /// Whether metadata documents below this issuer's own URL may identify clients: the
    /// installations enrolled there.
    pub client_documents: bool,
    /// The interactive path for its people; `None`: only through cross-app access.
    pub sign_in: Option<InteractiveSignIn>,
    /// Switched off by an administrator: its ID-JAGs are rejected, and tokens that came from them
    /// become invalid.
    pub disabled: bool,
}

impl TrustedIssuer {
    /// The interactive path, if people of this issuer may use it. For a multi-tenant issuer, a
    /// sign-in does not show which tenant a person belongs to, so the path is closed whatever the
    /// record says.
    pub fn open_sign_in(&self) -> Option<&InteractiveSignIn> {
        self.sign_in.as_ref().filter(|_| self.tenant.is_none())
    }
}

/// An origin whose client metadata documents a RAS accepts, in addition to those of trusted
/// issuers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHost {
    /// Scheme, host and port: `https://app.example`.
    pub origin: String,
    /// Switched off by an administrator.
    pub disabled: bool,
}

/// A person at an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubjectLink {
    /// The trusted issuer, or the identity provider.
    pub issuer: SubjectIssuer,
    /// Its tenant, if it has several.
    pub tenant: Option<String>,
    /// `sub` of its ID-JAGs.
    pub subject: String,
}

impl SubjectLink {
    /// One text for the three values, distinct for distinct links: none of them can contain a line
    /// feed.
    pub fn key(&self) -> String {
        let tenant = self.tenant.as_deref().unwrap_or_default();
        format!("{}\n{tenant}\n{}", self.issuer, self.subject)
    }
}

/// A person at a RAS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `sub` of the access tokens issued here.
    pub id: String,
    /// Address, if known; unique among accounts when set.
    pub email: Option<String>,
    /// Switched off by an administrator.
    pub disabled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_links_only_in_a_domain_the_issuer_owns() {
        let accounts = AccountResolution {
            just_in_time: false,
            email_domains: vec!["acme.example".to_owned()],
        };
        assert!(accounts.links_by("alice@acme.example"));
        assert!(accounts.links_by("alice@ACME.example"));
        for not in [
            "alice@evil.example",
            "alice@acme.example.evil",
            "alice@evil@acme.example",
            "alice@sub.acme.example",
            "@acme.example",
            "acme.example",
            "alice@аcme.example",
        ] {
            assert!(!accounts.links_by(not), "{not}");
        }
        assert!(!AccountResolution::default().links_by("alice@acme.example"));
    }
}
