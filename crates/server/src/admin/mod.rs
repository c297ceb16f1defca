//! The administration API, on a listener of its own. Every change is one transaction with its audit
//! event; nothing secret is ever read back.

mod idp;
mod ras;
mod records;

pub use idp::IdpAdmin;
pub use ras::RasAdmin;
pub use records::MakeKey;

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse,
};
use carnet_proto::secret::{Secret, equal_in_constant_time};
use carnet_store::StoreError;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// The administration API of the roles in one process.
pub struct AdminApi {
    /// SHA-256 of the bootstrap secret ([`Secret::hash`]).
    pub secret_hash: String,
    /// Values of `Host` under which the API is reached.
    pub hosts: Vec<String>,
    /// The IdP, if it runs here.
    pub idp: Option<IdpAdmin>,
    /// The RASes that run here, by name.
    pub ras: BTreeMap<String, RasAdmin>,
    /// Administration of the gateways that run here.
    pub gateway: Option<Router>,
}

#[derive(Clone)]
struct Gate {
    secret_hash: String,
    hosts: Vec<String>,
}

impl AdminApi {
    /// Every route, behind the secret.
    pub fn router(self) -> Router {
        let names: Vec<_> = self
            .ras
            .iter()
            .map(|(name, ras)| json!({"name": name, "issuer": ras.issuer()}))
            .collect();
        let roles = json!({"idp": self.idp.as_ref().map(IdpAdmin::issuer), "ras": names,
                           "gateway": self.gateway.is_some()});
        let mut router =
            Router::new().route("/roles", axum::routing::get(move || async move { Json(roles) }));
        if let Some(idp) = self.idp {
            router = router.nest("/idp", idp.router());
        }
        for (name, ras) in self.ras {
            router = router.nest(&format!("/ras/{name}"), ras.router());
        }
        if let Some(gateway) = self.gateway {
            router = router.nest("/gateway", gateway);
        }
        let gate = Gate { secret_hash: self.secret_hash, hosts: self.hosts };
        router.layer(middleware::from_fn_with_state(gate, admit))
    }
}

async fn admit(State(gate): State<Gate>, request: Request, next: Next) -> Response<Body> {
    if let Err(refused) = gate.check(request.headers()) {
        return refused;
    }
    let mut response = next.run(request).await;
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}

impl Gate {
    /// Host first, so that a web page cannot rebind its name to this listener; then the secret.
    fn check(&self, headers: &HeaderMap) -> Result<(), Response<Body>> {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        if !text(header::HOST).is_some_and(|host| self.hosts.iter().any(|held| held == host)) {
            let problem = Problem::new("this host name is not the administration API's")
                .hint("use the address from `[admin] listen`");
            return Err((StatusCode::MISDIRECTED_REQUEST, Json(problem)).into_response());
        }
        let presented =
            text(header::AUTHORIZATION).and_then(|header| header.strip_prefix("Bearer "));
        let hash = presented.map(|secret| Secret::new(secret).hash());
        if hash.is_some_and(|hash| equal_in_constant_time(&hash, &self.secret_hash)) {
            return Ok(());
        }
        let problem = Problem::new("the administration secret is missing or wrong")
            .hint("`carnet init` wrote it beside the config; pass its file with --secret-file");
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        Err((StatusCode::UNAUTHORIZED, challenge, Json(problem)).into_response())
    }
}

/// What an administrator reads when a call fails.
#[derive(Debug, Serialize)]
struct Problem {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Problem {
    fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Why a call failed.
enum AdminError {
    /// Something in it is wrong.
    Invalid(Problem),
    /// What it names is not there.
    Missing(Problem),
    /// What it would make is there already.
    Conflict(Problem),
    /// The fault is ours.
    Broken(StoreError),
}

impl AdminError {
    fn invalid(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid(Problem::new(error).hint(hint))
    }

    fn missing(kind: &str, id: &str) -> Self {
        let error = format!("there is no {kind} `{id}`");
        Self::Missing(
            Problem::new(error).hint(format!("list them with `carnet admin {kind} list`")),
        )
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NameTaken { .. } => Self::Conflict(
                Problem::new(error.to_string())
                    .hint("delete it first, or give this one another name"),
            ),
            error => Self::Broken(error),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> axum::response::Response {
        match self {
            Self::Invalid(problem) => (StatusCode::BAD_REQUEST, Json(problem)).into_response(),
            Self::Missing(problem) => (StatusCode::NOT_FOUND, Json(problem)).into_response(),
            Self::Conflict(problem) => (StatusCode::CONFLICT, Json(problem)).into_response(),
            Self::Broken(error) => crate::answer::broken(&error),
        }
    }
}
