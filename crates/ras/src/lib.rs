//! The resource authorization server: redeems ID-JAGs for short access tokens.

mod access_token;
mod callback;
mod calls;
mod code;
mod consent_page;
mod directory;
mod ended_tokens;
mod front_channel;
mod global_token_revocation;
mod jwt_bearer;
mod registration;
mod signals;
mod standing;
mod state;
mod token;
mod token_status;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::Response,
    routing::{get, post},
};
pub use ended_tokens::Told;
use passavant_authority::{
    Probe, answer,
    front_channel::{self as front, begin},
    operations::{readable_by_pages, strict_transport},
};
use passavant_proto::oauth::{metadata, scope::Scopes};
pub use state::{Ras, RasSettings};

impl Ras {
    /// Checks whether it can make decisions now, for `/readyz`.
    pub fn probe(&self) -> Probe {
        Probe::of(self)
    }

    /// All endpoints below the issuer's path, and the RFC 8414 document.
    pub fn router(&self) -> Router {
        let base = self.issuer().path().to_owned();
        let inserted = format!("/.well-known/oauth-authorization-server{base}");
        let mut public = Router::new()
            .route(&inserted, get(document))
            .route(&format!("{base}/jwks"), get(jwks))
            .route(&format!("{base}/token"), post(token::token))
            .route(&format!("{base}/revoke"), post(token_status::revoke));
        if self.0.settings.registration {
            public = public.route(&format!("{base}/register"), post(registration::register));
        }
        let router = Router::new()
            .merge(readable_by_pages(public))
            .route(&format!("{base}/introspect"), post(token_status::introspect))
            .route(&format!("{base}/ended_tokens"), post(ended_tokens::ended_tokens))
            .route(
                &format!("{base}/global_token_revocation"),
                post(global_token_revocation::revoke),
            )
            .route(&format!("{base}/authorize"), get(begin::<Ras>).post(front::answer::<Ras>))
            .route(&format!("{base}/callback"), get(callback::callback))
            .merge(passavant_signals::receiver_routes(&base))
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
