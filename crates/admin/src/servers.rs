//! The servers that are administered, an IdP or a RAS, and the dependencies of their acts.

use crate::types::UpstreamLeg;
use passavant_authority::{passwords::Passwords, sealing::Sealing};
use passavant_proto::{
    identifier::Issuer,
    jose::jwk::Algorithm,
    oauth::metadata::Revocations,
    oidc::upstream::UpstreamProvider,
    time::{Clock, Entropy, Timestamp},
};
use passavant_store::{SealedKey, Store};
use std::{pin::Pin, sync::Arc};

/// Makes a sealed signing key of an algorithm (`None`: the server's own) that begins to sign at the
/// given time.
pub type MakeKey =
    Arc<dyn Fn(Option<Algorithm>, Timestamp) -> Result<SealedKey, String> + Send + Sync>;

/// Makes a certificate for an upstream's name, and its key: both in DER.
pub type MakeCertificate =
    Arc<dyn Fn(&str, Timestamp) -> Result<(Vec<u8>, Vec<u8>), String> + Send + Sync>;

/// Looks at every leg of an upstream.
pub type CheckUpstream = Arc<
    dyn Fn(UpstreamProvider) -> Pin<Box<dyn Future<Output = Vec<UpstreamLeg>> + Send>>
        + Send
        + Sync,
>;

/// Asks authorization servers which ends of access they can be told of; `None` for one that does not answer.
pub type TakeRevocations = Arc<
    dyn Fn(Vec<String>) -> Pin<Box<dyn Future<Output = Vec<Option<Revocations>>> + Send>>
        + Send
        + Sync,
>;

/// What acts on upstreams need; only the binary has it.
#[derive(Clone)]
pub struct UpstreamTools {
    /// Seals secrets and keys.
    pub sealing: Sealing,
    /// Makes certificates.
    pub certificate: Option<MakeCertificate>,
    /// Looks at an upstream.
    pub check: Option<CheckUpstream>,
}

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

#[derive(Clone)]
pub(crate) struct AdministeredIdp {
    pub(crate) issuer: Issuer,
    pub(crate) deps: Deps,
    pub(crate) passwords: Passwords,
    /// Whether public clients may exchange, for explanations.
    pub(crate) public_exchange: bool,
    pub(crate) upstreams: UpstreamTools,
    /// Asks authorization servers, for previews of cut-offs.
    pub(crate) take_revocations: Option<TakeRevocations>,
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
        let upstreams = UpstreamTools { sealing: Sealing::none(), certificate: None, check: None };
        let idp = AdministeredIdp {
            issuer,
            deps,
            passwords,
            public_exchange: false,
            upstreams,
            take_revocations: None,
        };
        Self(Arc::new(idp))
    }

    /// Enables rotation of keys.
    #[must_use]
    pub fn keys(self, make: MakeKey) -> Self {
        self.with(|idp| idp.deps.make_key = Some(make))
    }

    /// Sets whether public clients may exchange.
    #[must_use]
    pub fn public_exchange(self, allowed: bool) -> Self {
        self.with(|idp| idp.public_exchange = allowed)
    }

    /// Enables upstreams whose secrets are sealed.
    #[must_use]
    pub fn upstreams(self, tools: UpstreamTools) -> Self {
        self.with(|idp| idp.upstreams = tools)
    }

    /// Enables previews that say which authorization servers are told.
    #[must_use]
    pub fn take_revocations(self, ask: TakeRevocations) -> Self {
        self.with(|idp| idp.take_revocations = Some(ask))
    }

    fn with(&self, change: impl FnOnce(&mut AdministeredIdp)) -> Self {
        let mut idp = AdministeredIdp::clone(&self.0);
        change(&mut idp);
        Self(Arc::new(idp))
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
