//! The resource authorization server: redeems ID-JAGs for short access tokens.

mod access_token;
mod code;
mod consent_page;
mod directory;
mod interactive;
mod jwt_bearer;
mod registration;
mod standing;
mod token_status;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::Response,
    routing::{get, post},
};
use directory::RasDirectory;
use passavant_authority::Probe;
use passavant_authority::{
    admission::{Admission, Rates},
    answer::{self, Failure},
    authority::{Authority, Context, Keys},
    calls,
    operations::{readable_by_pages, strict_transport},
    token_endpoint::{self, ClientRequest, Grants, TokenAnswer},
};
use passavant_proto::{
    GRANT_JWT_BEARER,
    event::RequestEvent,
    identifier::{Issuer, Resource},
    oauth::metadata,
    oauth::scope::Scopes,
    refusal::Refusal,
    secret::Secret,
};
use passavant_store::{AuditEvent, Store, StoreError, UsedJti};
use std::sync::Arc;

/// What an administrator sets for a RAS.
#[derive(Clone, Debug)]
pub struct RasSettings {
    /// How much is let in.
    pub rates: Rates,
    /// Whether clients may register themselves (RFC 7591).
    pub registration: bool,
    /// Whether any https metadata document names a client that a person may let in, whoever its host is.
    pub client_documents: bool,
    /// Refresh tokens of the interactive path end after this long without use, in seconds.
    pub refresh_idle: i64,
    /// Refresh tokens of one sign-in end after this long, in seconds: whoever has left the company since is
    /// not noticed before.
    pub refresh_absolute: i64,
}

impl Default for RasSettings {
    fn default() -> Self {
        Self {
            rates: Rates::default(),
            registration: false,
            client_documents: false,
            refresh_idle: 8 * 3600,
            refresh_absolute: 24 * 3600,
        }
    }
}

/// A resource authorization server. Cheap to clone.
#[derive(Clone)]
pub struct Ras(Arc<RasState>);

struct RasState {
    authority: Authority<RasDirectory>,
    settings: RasSettings,
    admission: Admission,
}

impl Ras {
    /// Opens a RAS on its store.
    pub async fn open(
        issuer: Issuer,
        store: Store,
        keys: impl Into<Keys>,
        context: Context,
        settings: RasSettings,
    ) -> Result<Self, StoreError> {
        let authority = Authority::open("ras", issuer, store, keys.into(), context).await?;
        let authority = authority.with_open_documents(settings.client_documents);
        let admission = Admission::new(settings.rates);
        Ok(Self(Arc::new(RasState { authority, settings, admission })))
    }

    /// Whether an access token of this RAS still stands: for a gateway of the same process. A text that is
    /// none never did.
    pub async fn stands(&self, token: &Secret) -> Result<bool, StoreError> {
        Ok(self.standing(token).await?.is_some())
    }

    /// Takes what a gateway of the same process reports of tool calls: one batch once.
    pub async fn take_calls(
        &self,
        gateway: &str,
        batch: &str,
        lines: &str,
    ) -> Result<usize, StoreError> {
        let authority = &self.0.authority;
        let batch = UsedJti {
            namespace: format!("gateway {gateway}"),
            jti: batch.to_owned(),
            forget_after: authority.now().plus(30 * 86_400),
        };
        let snapshot = authority.fresh().await?;
        let governed = move |named: &str| {
            let held = &snapshot.directory.governed;
            Resource::parse(named).is_ok_and(|named| held.iter().any(|held| held.resource == named))
        };
        let events = calls::read(lines.to_owned(), authority.now(), governed).await?;
        authority.store.record_batch(&batch, &events).await
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &Issuer {
        &self.0.authority.issuer
    }

    /// Whether it could decide now, for `/readyz`.
    pub fn probe(&self) -> Probe {
        Probe::of(self)
    }

    /// Every endpoint, below the issuer's path, and the RFC 8414 document.
    pub fn router(&self) -> Router {
        let base = self.issuer().path().to_owned();
        let inserted = format!("/.well-known/oauth-authorization-server{base}");
        let mut public = Router::new()
            .route(&inserted, get(document))
            .route(&format!("{base}/jwks"), get(jwks))
            .route(&format!("{base}/token"), post(token))
            .route(&format!("{base}/revoke"), post(token_status::revoke));
        if self.0.settings.registration {
            public = public.route(&format!("{base}/register"), post(registration::register));
        }
        let router = Router::new()
            .merge(readable_by_pages(public))
            .route(&format!("{base}/introspect"), post(token_status::introspect))
            .route(&format!("{base}/authorize"), get(interactive::begin).post(interactive::answer))
            .route(&format!("{base}/callback"), get(interactive::callback))
            .with_state(self.clone());
        strict_transport(router, self.issuer())
    }
}

async fn document(State(ras): State<Ras>) -> Response<Body> {
    let authority = &ras.0.authority;
    let snapshot = match authority.fresh().await {
        Ok(snapshot) => snapshot,
        Err(error) => return answer::broken(&error),
    };
    let live = snapshot.directory.governed.iter().filter(|governed| !governed.disabled);
    let scopes = live.fold(Scopes::default(), |all, governed| all.union(&governed.scopes));
    let offers = metadata::RasOffers {
        documents: snapshot.directory.takes_documents_of_others()
            || (authority.open_documents && snapshot.directory.interactive().next().is_some()),
        people: snapshot.directory.interactive().next().is_some(),
        registration: ras.0.settings.registration,
    };
    answer::public(&metadata::ras(&authority.issuer, &scopes, offers))
}

async fn jwks(State(ras): State<Ras>) -> Response<Body> {
    match ras.0.authority.fresh().await {
        Ok(snapshot) => answer::public(snapshot.keys.jwks()),
        Err(error) => answer::broken(&error),
    }
}

/// The token endpoint's route table.
async fn token(State(ras): State<Ras>, request: Request) -> Response<Body> {
    token_endpoint::token(&ras, request).await
}

impl Grants for Ras {
    type Records = RasDirectory;

    fn authority(&self) -> &Authority<RasDirectory> {
        &self.0.authority
    }

    fn admission(&self) -> &Admission {
        &self.0.admission
    }

    async fn grant(
        &self,
        request: &ClientRequest<RasDirectory>,
        event: &mut AuditEvent,
    ) -> Result<TokenAnswer, Failure> {
        let people = request.snapshot.directory.interactive().next().is_some();
        match request.form.required("grant_type") {
            Ok(grant) if !request.client.record().may_use(grant) => {
                Err(Failure::Refused(Refusal::GrantNotRegistered))
            }
            Ok(GRANT_JWT_BEARER) => {
                event.event = RequestEvent::JwtBearer.into();
                jwt_bearer::redeem(self, request, event).await
            }
            Ok("authorization_code") if people => {
                event.event = RequestEvent::AuthorizationCode.into();
                code::redeem(self, request, event).await
            }
            Ok("refresh_token") if people => {
                event.event = RequestEvent::RefreshToken.into();
                code::renew(self, request, event).await
            }
            Ok(_) => Err(Failure::Refused(Refusal::GrantType)),
            Err(error) => Err(Failure::Refused(error.into())),
        }
    }
}
