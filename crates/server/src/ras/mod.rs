//! The resource authorization server: redeems ID-JAGs for short access tokens.

mod directory;
mod jwt_bearer;
mod token_status;

use crate::{
    answer::{self, Failure, error_page},
    authority::{Authority, Context, KeyRing},
    calls,
    throttle::Throttle,
    token_endpoint::{client_request, conclude},
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode},
    routing::{get, post},
};
use carnet_proto::{
    GRANT_JWT_BEARER, identifier::Issuer, metadata, refusal::Refusal, scope::Scopes, secret::Secret,
};
use carnet_store::{Store, StoreError, UsedJti};
use directory::RasDirectory;
use std::{num::NonZeroU32, sync::Arc};

/// What an administrator sets for a RAS.
#[derive(Clone, Debug)]
pub struct RasSettings {
    /// Failed client authentications from one address per minute, before it has to wait.
    pub failures_per_minute: NonZeroU32,
}

impl Default for RasSettings {
    fn default() -> Self {
        Self { failures_per_minute: NonZeroU32::MIN.saturating_add(29) }
    }
}

/// A resource authorization server. Cheap to clone.
#[derive(Clone)]
pub struct Ras(Arc<RasState>);

struct RasState {
    authority: Authority<RasDirectory>,
    throttle: Throttle,
}

impl Ras {
    /// Opens a RAS on its store.
    pub async fn open(
        issuer: Issuer,
        store: Store,
        keys: KeyRing,
        context: Context,
        settings: RasSettings,
    ) -> Result<Self, StoreError> {
        let authority = Authority::open(issuer, store, keys, context).await?;
        let throttle = Throttle::new(settings.failures_per_minute);
        Ok(Self(Arc::new(RasState { authority, throttle })))
    }

    /// Whether an access token of this RAS still stands: for a gateway of the same process. A text that is
    /// none never did.
    pub async fn stands(&self, token: &Secret) -> Result<bool, StoreError> {
        token_status::stands(self, token).await
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
        authority.store.record_batch(&batch, &calls::events(&calls::lines(lines))).await
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &Issuer {
        &self.0.authority.issuer
    }

    /// Every endpoint, below the issuer's path, and the RFC 8414 document.
    pub fn router(&self) -> Router {
        let base = self.issuer().path().to_owned();
        let inserted = format!("/.well-known/oauth-authorization-server{base}");
        Router::new()
            .route(&inserted, get(document))
            .route(&format!("{base}/jwks"), get(jwks))
            .route(&format!("{base}/token"), post(token))
            .route(&format!("{base}/revoke"), post(token_status::revoke))
            .route(&format!("{base}/introspect"), post(token_status::introspect))
            .route(&format!("{base}/authorize"), get(no_sign_in))
            .with_state(self.clone())
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
    let documents = snapshot.directory.takes_documents();
    answer::public(&metadata::ras(&authority.issuer, &scopes, documents))
}

async fn jwks(State(ras): State<Ras>) -> Response<Body> {
    answer::public(ras.0.authority.keys.jwks())
}

/// People are not sent here: access comes from the company's identity provider.
async fn no_sign_in() -> Response<Body> {
    let text = "There is no sign-in here: access to these MCP servers comes from your company's \
                identity provider. Use a client with cross-app access, or ask IT.";
    error_page(StatusCode::BAD_REQUEST, text)
}

/// The token endpoint's route table.
async fn token(State(ras): State<Ras>, request: Request) -> Response<Body> {
    let authority = &ras.0.authority;
    let url = authority.issuer.endpoint("/token");
    let client_request =
        match client_request(authority, &ras.0.throttle, &url, "token", request).await {
            Ok(client_request) => client_request,
            Err(refused) => return refused,
        };
    let mut event = client_request.event.clone();
    let outcome = match client_request.form.required("grant_type") {
        Ok(GRANT_JWT_BEARER) => {
            event.event = "jwt_bearer".into();
            jwt_bearer::redeem(&ras, client_request, &mut event).await
        }
        Ok(_) => Err(Failure::Refused(Refusal::GrantType)),
        Err(error) => Err(Failure::Refused(error.into())),
    };
    match outcome {
        Ok(tokens) => answer::no_store(StatusCode::OK, &tokens),
        Err(failure) => conclude(authority, event, failure).await,
    }
}
