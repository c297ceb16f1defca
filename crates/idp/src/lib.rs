//! The identity provider: signs people in, issues ID tokens and ID-JAGs.

mod account;
mod asked;
mod assertion_exchange;
mod authorization_code;
mod backchannel_logout;
mod bearer;
mod calls;
mod catalog;
mod check_upstream;
mod device;
mod directory;
mod front_channel;
mod global_token_revocation;
mod installations;
mod logout;
mod logout_notices;
mod pushed_request;
mod recovery;
mod refresh_token;
mod revocation_notices;
mod scim;
mod sign_in;
mod signals;
mod standing;
mod state;
mod token;
mod token_exchange;
mod token_status;
mod tokens;
mod userinfo;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
pub use check_upstream::Leg;
use passavant_authority::Probe;
use passavant_authority::{
    answer as answers,
    front_channel::{answer, begin},
    operations::{readable_by_pages, strict_transport},
};
use passavant_proto::{
    oauth::client_document::INSTALLATIONS,
    oauth::metadata::{self, IdpOffers},
};
pub use state::{Idp, IdpSettings};

impl Idp {
    /// Checks whether it can make decisions now, for `/readyz`.
    pub fn probe(&self) -> Probe {
        Probe::of(self)
    }

    /// All endpoints below the issuer's path, and the two discovery documents.
    pub fn router(&self) -> Router {
        let issuer = self.issuer().clone();
        let base = issuer.path().to_owned();
        let inserted = format!("/.well-known/oauth-authorization-server{base}");
        let oidc_inserted = format!("/.well-known/openid-configuration{base}");
        let oidc_appended = format!("{base}/.well-known/openid-configuration");
        let document = get(|State(idp): State<Idp>| async move { idp.metadata() });
        let mut public = Router::new()
            .merge(passavant_signals::configuration_route(&base))
            .route(&inserted, document.clone())
            .route(&oidc_inserted, document.clone())
            .route(&format!("{base}/jwks"), get(jwks));
        if !base.is_empty() {
            public = public.route(&oidc_appended, document);
        }
        let router = Router::new()
            .route(&format!("{base}/"), get(front))
            .route(&format!("{base}/authorize"), get(begin::<Idp>).post(answer::<Idp>))
            .route(
                &format!("{base}/callback/{{upstream}}"),
                get(sign_in::upstream::callback).post(sign_in::upstream::posted),
            )
            .route(&format!("{base}/saml/{{upstream}}"), get(sign_in::upstream::metadata))
            .route(&format!("{base}/forward.js"), get(forward))
            .route(
                &format!("{base}/backchannel_logout/{{upstream}}"),
                post(backchannel_logout::logout),
            )
            .route(
                &format!("{base}/global_token_revocation/{{upstream}}"),
                post(global_token_revocation::revoke),
            )
            .route(&format!("{base}/token"), post(token::token))
            .route(&format!("{base}/par"), post(pushed_request::push))
            .route(&format!("{base}/device_authorization"), post(device::authorize))
            .route(&format!("{base}/activate"), get(device::page).post(device::answer))
            .route(&format!("{base}/account"), get(account::page).post(account::answer))
            .route(&format!("{base}/recover"), get(recovery::page).post(recovery::answer))
            .route(&format!("{base}/passkey.js"), get(script))
            .route(&format!("{base}/userinfo"), get(userinfo::tell).post(userinfo::tell))
            .route(&format!("{base}/revoke"), post(token_status::revoke))
            .route(&format!("{base}/introspect"), post(token_status::introspect))
            .route(&format!("{base}/logout"), get(logout::ask).post(logout::end))
            .route(&format!("{base}/catalog"), get(catalog::tell))
            .route(&format!("{base}/gateway-records"), post(calls::report))
            .route(
                &format!("{base}{INSTALLATIONS}"),
                get(installations::list).post(installations::enrol),
            )
            .route(
                &format!("{base}{INSTALLATIONS}/{{id}}"),
                get(installations::document).delete(installations::revoke),
            );
        let router = router
            .merge(scim::routes(&base))
            .merge(passavant_signals::transmitter_routes(&base))
            .merge(passavant_signals::receiver_routes(&base))
            .merge(readable_by_pages(public));
        strict_transport(router.with_state(self.clone()), &issuer)
    }

    fn metadata(&self) -> axum::response::Response {
        let authority = &self.0.authority;
        let public = authority.snapshot().directory.has_public_clients();
        let algorithms = authority.snapshot().keys.algorithms();
        let settings = &self.0.settings;
        let offers = IdpOffers {
            public_clients: public,
            enrolment: settings.enrolment,
            devices: settings.device_authorization,
        };
        let mut document = metadata::idp(&authority.issuer, &algorithms, offers);
        // OpenID Federation 1.0 section 5.2.2: a client says with it who ended a sign-in.
        if settings.name != state::UNNAMED {
            document["organization_name"] = settings.name.as_str().into();
        }
        answers::public(&document)
    }
}

/// The page for a visitor who comes without an application: says where they are, and what can be
/// done here.
async fn front(State(idp): State<Idp>) -> axum::response::Response {
    let name = &idp.0.settings.name;
    let content = maud::html! {
        h1 { "Sign-in of " (name) }
        p.soft { "Applications and agents send you here to sign in. Start in one of them." }
        @if idp.0.settings.device_authorization {
            p { a href=(idp.issuer().endpoint("/activate")) { "Type a code that a device shows" } }
        }
        p { a href=(idp.issuer().endpoint("/account")) { "Your account" } }
        p { a href=(idp.issuer().endpoint("/logout")) { "Sign out" } }
    };
    answers::page(StatusCode::OK, &format!("Sign-in of {name}"), &content, "")
}

/// The script of the pages that ask for a passkey.
async fn script() -> axum::response::Response {
    of_script(include_str!("sign_in/passkey.js"))
}

/// The script of the pages that only pass a form on.
async fn forward() -> axum::response::Response {
    of_script(include_str!("sign_in/forward.js"))
}

fn of_script(text: &'static str) -> axum::response::Response {
    let headers = [
        (axum::http::header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (axum::http::header::CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, text).into_response()
}

async fn jwks(State(idp): State<Idp>) -> axum::response::Response {
    // As of this request, even if no other request comes: a removed key is gone, and a new one is
    // there.
    match idp.0.authority.fresh().await {
        Ok(snapshot) => answers::public(snapshot.keys.jwks()),
        Err(error) => answers::broken(&error),
    }
}
