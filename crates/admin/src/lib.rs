//! The administration API, on a listener of its own. Every change is one transaction with its audit
//! event, which says who did it; nothing secret is ever read back.

mod acting;
mod administrators;
mod idp;
mod keys;
pub mod proof;
mod ras;
mod records;

pub use acting::By;
pub use idp::IdpAdmin;
pub use keys::{MakeKey, STILL_VERIFIES};
pub use ras::RasAdmin;

use acting::Need;
use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::IntoResponse,
};
use carnet_authority::{admission::Cells, token_endpoint::origin_of};
use carnet_proto::{
    others_text::shown,
    secret::Secret,
    time::{Clock, Entropy},
};
use carnet_store::{
    AdminRole, Administrator, AuditEvent, HotOperation, Store, StoreError, StoredProof,
};
use proof::{Asked, Challenges, Presented};
use serde::Serialize;
use serde_json::json;
use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

/// The administration API of the roles in one process.
pub struct AdminApi {
    /// What the secret of the config is checked by ([`proof::stored`]). Whoever has it is an owner everywhere.
    pub secret: StoredProof,
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

/// An authorization server: the paths under which it is administered, and its records.
struct Place {
    prefix: String,
    store: Store,
}

struct Gate {
    secret: StoredProof,
    hosts: Vec<String>,
    challenges: Challenges,
    places: Vec<Place>,
    /// Refusals that go on record, by address or by administrator.
    refusals: Cells,
    clock: Clock,
}

/// Refusals a minute that go on record.
const REFUSALS: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);

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
        let mut places = Vec::new();
        if let Some(idp) = self.idp {
            places.push(Place { prefix: "/idp".to_owned(), store: idp.store().clone() });
            router = router.nest("/idp", idp.router());
        }
        for (name, ras) in self.ras {
            let prefix = format!("/ras/{name}");
            let store = ras.store().clone();
            router = router.nest(&prefix, ras.router());
            places.push(Place { prefix, store });
        }
        if let Some(gateway) = self.gateway {
            router = router.nest("/gateway", gateway);
        }
        let gate = Gate {
            secret: self.secret,
            hosts: self.hosts,
            challenges: Challenges::new(self.clock.clone(), self.entropy),
            places,
            refusals: Cells::new(REFUSALS),
            clock: self.clock,
        };
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

/// Who asks, as it was proved.
struct Known {
    /// The administrator; none for whoever holds the secret of the config.
    name: Option<String>,
    role: AdminRole,
    /// Where they are an administrator: an index of [`Gate::places`]; none for everywhere.
    place: Option<usize>,
    /// What their answers are proved by.
    proof: StoredProof,
}

/// Why nobody is let in.
enum Unknown {
    /// No secret, or a wrong one.
    Wrong,
    /// The right one, that has ended.
    Ended(String),
}

impl Gate {
    async fn answer(&self, request: Request, next: Next) -> Result<Response<Body>, Response<Body>> {
        self.check_host(request.headers())?;
        let is_read = request.method() == Method::GET;
        if request.uri().path() == proof::CHALLENGE && is_read {
            return Ok(Json(json!({"challenge": self.challenges.make()})).into_response());
        }
        let (mut parts, mut body) = request.into_parts();
        let value = bearer(&parts.headers).unwrap_or_default().to_owned();
        let is_proof = Presented::parse(&value).is_some();
        let mut bytes = Bytes::new();
        if is_proof {
            // Requests are limited by the listener.
            let too_large = |_| StatusCode::PAYLOAD_TOO_LARGE.into_response();
            bytes = to_bytes(body, LARGEST).await.map_err(too_large)?;
            body = Body::from(bytes.clone());
        }
        let known = match self.identify(&parts, &value, &bytes).await {
            Ok(Ok(known)) => known,
            Ok(Err(unknown)) => return Err(self.turn_away(&parts, unknown).await),
            Err(error) => return Err(carnet_authority::answer::broken(&error)),
        };
        let response = match self.may(&known, &parts) {
            Ok(()) => {
                parts.extensions.insert(By::new(known.name.as_deref(), &parts));
                next.run(Request::from_parts(parts, body)).await
            }
            Err(problem) => self.forbid(&known, &parts, problem).await,
        };
        if !is_proof {
            return Ok(response);
        }
        let (mut head, body) = response.into_parts();
        let broken = |_| StatusCode::INTERNAL_SERVER_ERROR.into_response();
        let bytes = to_bytes(body, LARGEST).await.map_err(broken)?;
        let key = &known.proof.server_key;
        let proof = proof::of_answer(key, &value, head.status.as_u16(), &bytes);
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

    /// Who sends this: the secret itself, or a proof of it, which is used up.
    async fn identify(
        &self,
        parts: &Parts,
        value: &str,
        body: &[u8],
    ) -> Result<Result<Known, Unknown>, StoreError> {
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let asked = Asked { method: parts.method.as_str(), target, body };
        let presented = Presented::parse(value);
        let secret = Secret::new(value);
        let proves = |held: &StoredProof| match &presented {
            Some(presented) => self.challenges.check(presented, held, asked).is_some(),
            None => proof::is_secret(held, &secret),
        };
        let name = match &presented {
            Some(presented) => presented.name.as_deref(),
            None => proof::name_in(&secret),
        };
        let Some(name) = name else {
            let known = Known {
                name: None,
                role: AdminRole::Owner,
                place: None,
                proof: self.secret.clone(),
            };
            return Ok(if proves(&self.secret) { Ok(known) } else { Err(Unknown::Wrong) });
        };
        // Where they ask first: an administrator of two authorization servers has a token of each.
        let mut places: Vec<(usize, &Place)> = self.places.iter().enumerate().collect();
        places.sort_by_key(|(_, place)| !is_under(parts.uri.path(), &place.prefix));
        for (index, place) in places {
            let Some(held) = place.store.by_id::<Administrator>(name).await? else { continue };
            if !proves(&held.proof) {
                continue;
            }
            if held.expires_at <= self.clock.now() {
                return Ok(Err(Unknown::Ended(held.name)));
            }
            let (role, proof) = (held.role, held.proof);
            return Ok(Ok(Known { name: Some(held.name), role, place: Some(index), proof }));
        }
        Ok(Err(Unknown::Wrong))
    }

    /// Whether they may do this here.
    fn may(&self, known: &Known, parts: &Parts) -> Result<(), Problem> {
        let Some(place) = known.place else { return Ok(()) };
        let path = parts.uri.path();
        let need = Need::of(&parts.method, path);
        if path == "/roles" {
            return Ok(());
        }
        let place = &self.places[place];
        if !is_under(path, &place.prefix) {
            let error = format!("this administrator is one of `{}` alone", place.prefix);
            return Err(
                Problem::new(error).hint("use the secret of the config, or a token of there")
            );
        }
        if known.role < need.least() {
            let error = format!(
                "this takes the role `{}`, and the administrator's is `{}`",
                need.least().word(),
                known.role.word()
            );
            return Err(Problem::new(error).hint("an owner can do it, or give a token that may"));
        }
        Ok(())
    }

    /// The answer to somebody who has not proved who they are; what is on record of it is counted by their address.
    async fn turn_away(&self, parts: &Parts, unknown: Unknown) -> Response<Body> {
        let (_, address) = origin_of(parts);
        let (reason, name, problem) = match unknown {
            Unknown::Wrong => (
                "administrator.unknown",
                None,
                Problem::new("the administration secret is missing or wrong").hint(
                    "`carnet init` wrote it beside the config; pass its file with --secret-file",
                ),
            ),
            Unknown::Ended(name) => (
                "administrator.expired",
                Some(name),
                Problem::new("this administrator's token has ended")
                    .hint("an owner makes another one: `carnet admin administrator renew NAME`"),
            ),
        };
        tracing::warn!(%address, reason, "administration was refused");
        if let Err(busy) = self.note(parts, &address, reason, name).await {
            return busy;
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        (StatusCode::UNAUTHORIZED, challenge, Json(problem)).into_response()
    }

    /// The answer to an administrator who may not do what they ask for.
    async fn forbid(&self, known: &Known, parts: &Parts, problem: Problem) -> Response<Body> {
        let name = known.name.clone().unwrap_or_default();
        tracing::warn!(administrator = name, "administration was refused: {}", problem.error);
        let key = format!("administrator {name}");
        match self.note(parts, &key, "administrator.role", Some(name)).await {
            Ok(()) => (StatusCode::FORBIDDEN, Json(problem)).into_response(),
            Err(busy) => busy,
        }
    }

    /// A refusal on record where it was asked for; a cell is taken before the row is written.
    async fn note(
        &self,
        parts: &Parts,
        key: &str,
        reason: &'static str,
        name: Option<String>,
    ) -> Result<(), Response<Body>> {
        self.refusals.take(key).map_err(|busy| carnet_authority::answer::throttled(busy.0))?;
        let here = self.places.iter().find(|place| is_under(parts.uri.path(), &place.prefix));
        let Some(place) = here.or(self.places.first()) else { return Ok(()) };
        let (request_id, address) = origin_of(parts);
        let now = self.clock.now();
        let event = AuditEvent::granted("admin", now)
            .with("by", name.unwrap_or_default())
            .with("address", address)
            .with("request_id", request_id)
            .with("method", parts.method.as_str())
            .with("target", shown(parts.uri.path(), 256))
            .refused(reason);
        let recorded = place.store.record(HotOperation::new(Some(event)), now).await;
        recorded.map(|_| ()).map_err(|error| carnet_authority::answer::broken(&error))
    }
}

fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
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
            Self::Broken(error) => carnet_authority::answer::broken(&error),
        }
    }
}
