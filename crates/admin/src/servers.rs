//! The servers that are administered, an IdP or a RAS, and the dependencies of their acts.

use passavant_authority::passwords::Passwords;
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::Algorithm,
    time::{Clock, Entropy, Timestamp},
};
use passavant_store::{SealedKey, Store};
use std::sync::Arc;

/// Makes a sealed signing key of an algorithm (`None`: the server's own) that begins to sign at the
/// given time.
pub type MakeKey =
    Arc<dyn Fn(Option<Algorithm>, Timestamp) -> Result<SealedKey, String> + Send + Sync>;

/// The dependencies of every act.
#[derive(Clone)]
pub(crate) struct Deps {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    /// Makes signing keys; only the binary can seal them.
    pub(crate) make_key: Option<MakeKey>,
}

impl Deps {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// What the IdP and the RAS have in common for administration.
pub(crate) trait Administration: Clone + Send + Sync + 'static {
    /// The word for a person at this server.
    const PERSON: &'static str;
    fn deps(&self) -> &Deps;
    /// The name of a person in an audit row, if it is known here.
    fn name_of(&self, id: &str) -> impl Future<Output = Option<String>> + Send;
    /// The id of a person who is named by id or name.
    fn person(&self, named: &str) -> impl Future<Output = Option<String>> + Send;
}

/// Administration of one IdP.
#[derive(Clone)]
pub struct IdpAdmin(pub(crate) Arc<AdministeredIdp>);

pub(crate) struct AdministeredIdp {
    pub(crate) issuer: Issuer,
    pub(crate) deps: Deps,
    pub(crate) passwords: Passwords,
    /// Whether public clients may exchange, for explanations.
    pub(crate) public_exchange: bool,
}

impl IdpAdmin {
    /// Administration of the IdP `issuer` on `store`.
    pub fn new(
        issuer: Issuer,
        store: Store,
        clock: Clock,
        entropy: Entropy,
        passwords: Passwords,
    ) -> Self {
        let deps = Deps { store, clock, entropy, make_key: None };
        Self(Arc::new(AdministeredIdp { issuer, deps, passwords, public_exchange: false }))
    }

    /// Enables rotation of keys.
    #[must_use]
    pub fn keys(self, make: MakeKey) -> Self {
        let deps = Deps { make_key: Some(make), ..self.0.deps.clone() };
        self.with(deps, self.0.public_exchange)
    }

    /// Sets whether public clients may exchange.
    #[must_use]
    pub fn public_exchange(self, allowed: bool) -> Self {
        self.with(self.0.deps.clone(), allowed)
    }

    fn with(&self, deps: Deps, public_exchange: bool) -> Self {
        let (issuer, passwords) = (self.0.issuer.clone(), self.0.passwords.clone());
        Self(Arc::new(AdministeredIdp { issuer, deps, passwords, public_exchange }))
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }
}

/// Administration of one RAS.
#[derive(Clone)]
pub struct RasAdmin(pub(crate) Arc<AdministeredRas>);

pub(crate) struct AdministeredRas {
    pub(crate) issuer: Issuer,
    pub(crate) deps: Deps,
}

impl RasAdmin {
    /// Administration of the RAS `issuer` on `store`.
    pub fn new(issuer: Issuer, store: Store, clock: Clock, entropy: Entropy) -> Self {
        let deps = Deps { store, clock, entropy, make_key: None };
        Self(Arc::new(AdministeredRas { issuer, deps }))
    }

    /// Enables rotation of keys.
    #[must_use]
    pub fn keys(self, make: MakeKey) -> Self {
        let AdministeredRas { issuer, deps } = &*self.0;
        let deps = Deps { make_key: Some(make), ..deps.clone() };
        Self(Arc::new(AdministeredRas { issuer: issuer.clone(), deps }))
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.0.issuer
    }
}
