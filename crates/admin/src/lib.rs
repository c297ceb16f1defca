//! The administration API, on a listener of its own. Every change is one transaction with its audit
//! event, which says who did it; nothing secret is ever read back.

mod acting;
mod administrators;
mod ground;
mod idp;
mod keys;
pub mod proof;
mod ras;
mod records;

pub use acting::By;
pub use ground::MakeKey;
pub use idp::IdpAdmin;
pub use keys::STILL_VERIFIES;
pub use ras::RasAdmin;

use acting::Need;
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::IntoResponse,
};
use passavant_authority::{admission::Cells, origin::origin_of};
use passavant_proto::{
    event::{Detail, RequestEvent},
    others_text::shown,
    secret::Secret,
    time::{Clock, Entropy},
};
use passavant_store::{
    AdminRole, Administrator, AuditEvent, RestsOn, Store, StoreError, StoredProof,
};
use proof::{Asked, Challenges, Presented};
use serde::Serialize;
use serde_json::json;
use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32, sync::Arc};

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

impl Place {
    /// What people call it.
    fn said(&self) -> String {
        match self.prefix.strip_prefix("/ras/") {
            Some(name) => format!("the authorization server `{name}`"),
            None => "the identity provider".to_owned(),
        }
    }
}

/// Where gateways are administered.
const GATEWAY: &str = "/gateway";

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
            router = router.nest(GATEWAY, gateway);
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
#[derive(Clone)]
struct Known {
    /// The administrator; none for whoever holds the secret of the config.
    name: Option<String>,
    role: AdminRole,
    /// Where they are an administrator: an index of [`Gate::places`]; none for everywhere.
    place: Option<usize>,
    /// What their answers are proved by.
    proof: StoredProof,
}

impl Known {
    /// What an act of theirs rests on, where it is a record.
    fn rests_on(&self) -> Option<RestsOn> {
        let name = self.name.clone()?;
        Some(RestsOn { name, stored_key: self.proof.stored_key.clone(), role: self.role })
    }
}

/// Why nobody is let in.
enum Unknown {
    /// No secret, or a wrong one.
    Wrong,
    /// The right one, that has ended.
    Ended(Known),
}

impl Gate {
    async fn answer(&self, request: Request, next: Next) -> Result<Response<Body>, Response<Body>> {
        self.check_host(request.headers())?;
        let is_read = request.method() == Method::GET;
        if request.uri().path() == proof::CHALLENGE && is_read {
            return Ok(Json(json!({"challenge": self.challenges.make()})).into_response());
        }
        let (mut parts, body) = request.into_parts();
        let Some(value) = bearer(&parts.headers).map(str::to_owned) else {
            return Err(self.turn_away(&parts, Unknown::Wrong).await);
        };
        // Whole, before it is looked at who asks: nobody waits in the middle of a request for their own removal.
        // Requests are limited by the listener.
        let too_large = |_| StatusCode::PAYLOAD_TOO_LARGE.into_response();
        let bytes = to_bytes(body, LARGEST).await.map_err(too_large)?;
        let identified = self.identify(&parts, &value, &bytes).await;
        let identified = identified.map_err(|error| passavant_authority::answer::broken(&error))?;
        let (known, response) = match identified {
            Err(Unknown::Wrong) => return Err(self.turn_away(&parts, Unknown::Wrong).await),
            Err(Unknown::Ended(known)) => {
                let response = self.turn_away(&parts, Unknown::Ended(known.clone())).await;
                (known, response)
            }
            Ok(known) => {
                let response = match self.may(&known, &parts) {
                    Ok(()) if has_nul(&parts, &bytes) => {
                        let problem = Problem::new("there is a NUL character in it")
                            .hint("no name, id or address has one");
                        (StatusCode::BAD_REQUEST, Json(problem)).into_response()
                    }
                    Ok(()) => {
                        parts.extensions.insert(By::new(known.rests_on(), &parts));
                        next.run(Request::from_parts(parts, Body::from(bytes))).await
                    }
                    Err(problem) => self.forbid(&known, &parts, problem).await,
                };
                (known, response)
            }
        };
        if Presented::parse(&value).is_none() {
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
        if headers.contains_key(header::ORIGIN) {
            let problem = Problem::new("pages of a browser have no business here")
                .hint("use `passavant admin`, or a program that sends no Origin header");
            return Err((StatusCode::FORBIDDEN, Json(problem)).into_response());
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
        // No other is asked for in the database.
        let name = match name {
            Some(name) if !administrators::is_name(name) => return Ok(Err(Unknown::Wrong)),
            name => name,
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
            let Some(held) = place.store.usable::<Administrator>(name).await? else { continue };
            if !proves(&held.proof) {
                continue;
            }
            let has_ended = held.expires_at <= self.clock.now();
            let (role, proof) = (held.role, held.proof);
            let known = Known { name: Some(held.name), role, place: Some(index), proof };
            return Ok(if has_ended { Err(Unknown::Ended(known)) } else { Ok(known) });
        }
        Ok(Err(Unknown::Wrong))
    }

    /// Whether they may do this here.
    fn may(&self, known: &Known, parts: &Parts) -> Result<(), Problem> {
        let Some(index) = known.place else { return Ok(()) };
        let path = parts.uri.path();
        if path == "/roles" {
            return Ok(());
        }
        let place = &self.places[index];
        // Gateways are administered where what is done to them goes on record.
        let prefix = if index == 0 && is_under(path, GATEWAY) { GATEWAY } else { &place.prefix };
        if !is_under(path, prefix) {
            let error = format!(
                "the administrator `{}` is one of {} alone",
                known.name.as_deref().unwrap_or_default(),
                place.said()
            );
            return Err(Problem::new(error)
                .hint("an owner there adds administrators (`passavant admin administrator add`, with or without --ras)"));
        }
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let need = Need::of(&parts.method, route.strip_prefix(prefix).unwrap_or_default());
        if known.role < need.least() {
            let least = need.least().word();
            let error = format!(
                "this takes the role `{least}`, and the administrator's is `{}`",
                known.role.word()
            );
            return Err(Problem::new(error)
                .hint(format!("ask somebody who has the role `{least}` or more")));
        }
        Ok(())
    }

    /// The answer to somebody who has not proved who they are, or whose token has ended; what is on record of it is
    /// counted by their address.
    async fn turn_away(&self, parts: &Parts, unknown: Unknown) -> Response<Body> {
        let (_, address) = origin_of(parts);
        let (reason, by, problem) = match unknown {
            Unknown::Wrong => (
                "administrator.unknown",
                None,
                Problem::new("the administration secret is missing or wrong, or a token that was replaced or removed")
                    .hint("`passavant init` wrote the secret beside the config; pass its file with --secret-file"),
            ),
            Unknown::Ended(known) => (
                "administrator.expired",
                Some(self.named(&known, parts)),
                Problem::new("this administrator's token has ended")
                    .hint("an owner makes another one: `passavant admin administrator renew NAME`"),
            ),
        };
        tracing::warn!(%address, reason, "administration was refused");
        // Whoever is on this machine has as many addresses as they like.
        let is_here =
            address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || address == "::/64";
        let key = if is_here { "this machine" } else { &address };
        if let Err(busy) = self.note(parts, key, reason, by).await {
            return busy;
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        (StatusCode::UNAUTHORIZED, challenge, Json(problem)).into_response()
    }

    /// The answer to an administrator who may not do what they ask for. What only owners may is counted apart, so that
    /// nothing else hides it.
    async fn forbid(&self, known: &Known, parts: &Parts, problem: Problem) -> Response<Body> {
        let by = self.named(known, parts);
        tracing::warn!(by, "administration was refused: {}", problem.error);
        let kind = if parts.uri.path().contains("/administrators") { "appoints" } else { "acts" };
        match self.note(parts, &format!("{kind} {by}"), "administrator.role", Some(by)).await {
            Ok(()) => (StatusCode::FORBIDDEN, Json(problem)).into_response(),
            Err(busy) => busy,
        }
    }

    /// An administrator by name, and where they are one, unless it is where they ask.
    fn named(&self, known: &Known, parts: &Parts) -> String {
        let name = known.name.clone().unwrap_or_default();
        match known.place.map(|index| &self.places[index]) {
            Some(place) if !is_under(parts.uri.path(), &place.prefix) => {
                format!("{name} of {}", place.said())
            }
            _ => name,
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
        self.refusals.take(key).map_err(|busy| passavant_authority::answer::throttled(busy.0))?;
        let here = self.places.iter().find(|place| is_under(parts.uri.path(), &place.prefix));
        let Some(place) = here.or(self.places.first()) else { return Ok(()) };
        let (request_id, address) = origin_of(parts);
        let now = self.clock.now();
        let event = AuditEvent::granted(RequestEvent::Administration, now)
            .with(Detail::By, name.unwrap_or_default())
            .with(Detail::Address, address)
            .with(Detail::RequestId, request_id)
            .with(Detail::Method, shown(parts.method.as_str(), 16))
            .with(Detail::Target, shown(parts.uri.path(), 256))
            .refused(reason);
        let recorded = place.store.note(event, now).await;
        recorded.map(|_| ()).map_err(|error| passavant_authority::answer::broken(&error))
    }
}

fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether somebody wrote a NUL, which no database takes.
fn has_nul(parts: &Parts, body: &[u8]) -> bool {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    target.contains("%00") || body.windows(6).any(|six| six == b"\\u0000")
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
    /// Whoever asks is no administrator any more.
    Gone(Problem),
    /// The fault is ours.
    Broken(StoreError),
}

impl AdminError {
    fn invalid(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid(Problem::new(error).hint(hint))
    }

    fn conflict(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Conflict(Problem::new(error).hint(hint))
    }

    fn missing(kind: &str, id: &str) -> Self {
        let error = format!("there is no {kind} `{id}`");
        Self::Missing(
            Problem::new(error).hint(format!("list them with `passavant admin {kind} list`")),
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
            StoreError::NoAdministrator => Self::Gone(
                Problem::new(
                    "you were removed meanwhile, or have another token or role; nothing was done",
                )
                .hint("ask an owner"),
            ),
            StoreError::Document(..) => Self::Conflict(Problem::new(error.to_string()).hint(
                "use the version that wrote it, or delete it: until then it counts as not there",
            )),
            error => Self::Broken(error),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> axum::response::Response {
        match self {
            Self::Invalid(problem) => (StatusCode::BAD_REQUEST, Json(problem)).into_response(),
            Self::Missing(problem) => (StatusCode::NOT_FOUND, Json(problem)).into_response(),
            Self::Gone(problem) => (StatusCode::UNAUTHORIZED, Json(problem)).into_response(),
            Self::Conflict(problem) => (StatusCode::CONFLICT, Json(problem)).into_response(),
            Self::Broken(error) => passavant_authority::answer::broken(&error),
        }
    }
}
