//! The administration API, on a listener of its own. Every change is one transaction with its audit
//! event; nothing secret is ever read back.

mod idp;
mod keys;
pub mod proof;
mod ras;
mod records;

pub use idp::IdpAdmin;
pub use keys::{MakeKey, STILL_VERIFIES};
pub use ras::RasAdmin;

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse,
};
use carnet_proto::{
    secret::{Secret, equal_in_constant_time},
    time::{Clock, Entropy},
};
use carnet_store::StoreError;
use proof::Challenges;
use serde::Serialize;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

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
    /// Wall clock.
    pub clock: Clock,
    /// Entropy.
    pub entropy: Entropy,
}

struct Gate {
    secret_hash: String,
    hosts: Vec<String>,
    challenges: Challenges,
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
        let challenges = Challenges::new(self.clock, self.entropy);
        let gate = Gate { secret_hash: self.secret_hash, hosts: self.hosts, challenges };
        router.layer(middleware::from_fn_with_state(Arc::new(gate), admit))
    }
}

async fn admit(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response<Body> {
    let mut response = match gate.answer(request, next).await {
        Ok(response) | Err(response) => response,
    };
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}

/// Largest answer that is proved, in bytes.
const LARGEST: usize = 64 * 1024 * 1024;

impl Gate {
    async fn answer(&self, request: Request, next: Next) -> Result<Response<Body>, Response<Body>> {
        self.check_host(request.headers())?;
        let is_read = request.method() == Method::GET;
        if request.uri().path() == proof::CHALLENGE && is_read {
            return Ok(Json(json!({"challenge": self.challenges.make()})).into_response());
        }
        if bearer(request.headers()).is_some_and(|value| value.starts_with("proof.")) {
            return self.answer_proved(request, next).await;
        }
        self.check_secret(request.headers())?;
        Ok(next.run(request).await)
    }

    /// A request that proves the secret instead of carrying it; so does the answer.
    async fn answer_proved(
        &self,
        request: Request,
        next: Next,
    ) -> Result<Response<Body>, Response<Body>> {
        let (parts, body) = request.into_parts();
        // Requests are limited by the listener.
        let too_large = |_| StatusCode::PAYLOAD_TOO_LARGE.into_response();
        let bytes = to_bytes(body, LARGEST).await.map_err(too_large)?;
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let value = bearer(&parts.headers).unwrap_or_default().to_owned();
        let request = (parts.method.as_str(), target, bytes.as_ref());
        self.challenges.check(&value, &self.secret_hash, request).ok_or_else(refused)?;
        let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
        let (mut head, body) = response.into_parts();
        let broken = |_| StatusCode::INTERNAL_SERVER_ERROR.into_response();
        let bytes = to_bytes(body, LARGEST).await.map_err(broken)?;
        let proof = proof::of_answer(&self.secret_hash, &value, head.status.as_u16(), &bytes);
        if let Ok(value) = HeaderValue::from_str(&proof) {
            head.headers.insert(proof::ANSWER, value);
        }
        Ok(Response::from_parts(head, Body::from(bytes)))
    }

    /// Host first, so that a web page cannot rebind its name to this listener.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Response<Body>> {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        if !text(header::HOST).is_some_and(|host| self.hosts.iter().any(|held| held == host)) {
            let problem = Problem::new("this host name is not the administration API's")
                .hint("use the address from `[admin] listen`");
            return Err((StatusCode::MISDIRECTED_REQUEST, Json(problem)).into_response());
        }
        Ok(())
    }

    fn check_secret(&self, headers: &HeaderMap) -> Result<(), Response<Body>> {
        let hash = bearer(headers).map(|secret| Secret::new(secret).hash());
        if hash.is_some_and(|hash| equal_in_constant_time(&hash, &self.secret_hash)) {
            return Ok(());
        }
        Err(refused())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn refused() -> Response<Body> {
    let problem = Problem::new("the administration secret is missing or wrong")
        .hint("`carnet init` wrote it beside the config; pass its file with --secret-file");
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, Json(problem)).into_response()
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
