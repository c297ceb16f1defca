//! An identity provider: its settings and its state.

use crate::{directory::IdpDirectory, sign_in::passkey::relying_party};
use passavant_authority::{
    admission::{Admission, Rates},
    authority::{Authority, Context, Keys},
    passwords::Passwords,
};
use passavant_proto::identifier::Issuer;
use passavant_store::{Store, StoreError};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use webauthn_rs::prelude::Webauthn;

/// The name on its pages where the company has given none.
pub(super) const UNNAMED: &str = "Passavant";

/// The settings of an IdP.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own
pub struct IdpSettings {
    /// The company's name on the sign-in page.
    pub name: String,
    /// `tenant` claim of ID-JAGs, for an issuer with several tenants.
    pub tenant: Option<String>,
    /// How long a browser's session lasts, in seconds.
    pub session_lifetime: i64,
    /// A refresh token expires after this time without use, in seconds.
    pub refresh_idle: i64,
    /// All refresh tokens of one sign-in expire after this time, in seconds.
    pub refresh_absolute: i64,
    /// Whether public clients may request ID-JAGs (MCP Enterprise-Managed Authorization, section
    /// 7.7: off unless an administrator enables it).
    pub allow_public_exchange: bool,
    /// Whether people may enrol installations of Passavant.
    pub enrolment: bool,
    /// Whether devices may show a code that the person types elsewhere (RFC 8628).
    pub device_authorization: bool,
    /// Whether people's catalogs list servers that they are refused, and which group they would
    /// need.
    pub show_refused: bool,
    /// A person who signed in at an upstream is checked there again when this time has passed, in
    /// seconds, at the next exchange or refresh.
    pub upstream_check: i64,
    /// How long the sign-ins of an upstream that does not answer go on after that, in seconds.
    pub upstream_grace: i64,
    /// Rate limits.
    pub rates: Rates,
}

impl Default for IdpSettings {
    fn default() -> Self {
        Self {
            name: UNNAMED.to_owned(),
            tenant: None,
            session_lifetime: 12 * 3600,
            refresh_idle: 8 * 3600,
            refresh_absolute: 7 * 86_400,
            allow_public_exchange: false,
            enrolment: true,
            device_authorization: true,
            show_refused: true,
            upstream_check: 300,
            upstream_grace: 3600,
            rates: Rates::default(),
        }
    }
}

/// An identity provider. Cheap to clone.
#[derive(Clone)]
pub struct Idp(pub(crate) Arc<IdpState>);

pub(crate) struct IdpState {
    pub(crate) authority: Authority<IdpDirectory>,
    pub(crate) settings: IdpSettings,
    pub(crate) passwords: Passwords,
    pub(crate) admission: Admission,
    /// Makes and verifies passkeys; `None` if the issuer's host is an address.
    pub(crate) passkeys: Option<Webauthn>,
    /// Checks of people at their upstreams that are under way.
    pub(crate) checks: TaskTracker,
    /// Turns for what is read and verified of others' XML: as many at a time as take a part of a machine.
    pub(crate) xml: Semaphore,
}

impl Idp {
    /// Opens an IdP on its store.
    pub async fn open(
        issuer: Issuer,
        store: Store,
        keys: impl Into<Keys>,
        context: Context,
        settings: IdpSettings,
        passwords: Passwords,
    ) -> Result<Self, StoreError> {
        let authority = Authority::open("idp", issuer, store, keys.into(), context).await?;
        let admission = Admission::new(settings.rates);
        let checks = TaskTracker::new();
        let passkeys = relying_party(&authority.issuer, &settings.name);
        let xml = Semaphore::new(2);
        let state = IdpState { authority, settings, passwords, admission, passkeys, checks, xml };
        Ok(Self(Arc::new(state)))
    }

    /// Waits until what is asked of upstreams has been answered: the next refresh token of one must
    /// not be lost.
    pub async fn finish(&self) {
        self.0.checks.close();
        self.0.checks.wait().await;
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &Issuer {
        &self.0.authority.issuer
    }
}
