//! The administration API over HTTP: authentication, authorization, and how errors are reported.
//! The acts themselves are in [`crate::acts`].

mod problem;
mod request;
mod table;

pub use table::document_text;

use crate::{
    acts::{
        administrators::is_name,
        context::{BY_SECRET, BY_SOCKET, By, Need},
    },
    proof::{self, Challenges, Presented, ProvenRequest},
    servers::{IdpAdmin, RasAdmin},
    types::{RasRole, RolesView},
};
use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::IntoResponse,
    routing::get,
};
use passavant_authority::{admission::Cells, origin::origin_of};
use passavant_proto::{
    event::{Detail, RequestEvent},
    others_text::shown,
    secret::{Secret, mac, sha256},
    time::{Clock, Entropy},
};
use passavant_store::{
    AdminRole, Administrator, AuditEvent, DoneBefore, Once, RestsOn, Store, StoreError, StoredProof,
};
use problem::{Again, as_problem, broken, refuse};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32, sync::Arc};
use table::Needs;

/// Members of answers that are shown once: they are stored nowhere, and not told again.
pub(crate) const SHOWN_ONCE: [&str; 3] = ["client_secret", "token", "link"];

/// The administration API of the roles in one process.
pub struct AdminApi {
    /// What the secret of the config is verified with ([`proof::stored`]). Whoever has the secret
    /// is an owner everywhere.
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

/// An authorization server: the path prefix under which it is administered, and its records.
struct AdministeredServer {
    prefix: String,
    store: Store,
    needs: Needs,
}

impl AdministeredServer {
    /// Its name for people.
    fn said(&self) -> String {
        match self.prefix.strip_prefix("/ras/") {
            Some(name) => format!("the authorization server `{name}`"),
            None => "the identity provider".to_owned(),
        }
    }
}

/// The path prefix for gateways.
const GATEWAY: &str = "/gateway";

impl Gate {
    /// The answer where no operation is. Whoever names an authorization server that does not run
    /// here learns which ones do.
    fn nothing_at(&self, path: &str) -> Response<Body> {
        let wanted = path.strip_prefix("/ras/").and_then(|rest| rest.split('/').next());
        let known = |wanted: &str| {
            self.servers.iter().any(|server| server.prefix.strip_prefix("/ras/") == Some(wanted))
        };
        let Some(wanted) = wanted.filter(|wanted| !known(wanted)) else {
            let hint = "`/openapi.json` lists what there is, `/roles` which servers";
            return refuse(StatusCode::NOT_FOUND, "there is nothing at this path", Some(hint));
        };
        let detail = format!("no authorization server is called `{}` here", shown(wanted, 100));
        let here: Vec<String> = self.servers.iter().map(AdministeredServer::said).collect();
        let hint = format!("administered here: {}", here.join(", "));
        refuse(StatusCode::NOT_FOUND, detail, Some(&hint))
    }
}

struct Gate {
    secret: StoredProof,
    hosts: Vec<String>,
    challenges: Challenges,
    servers: Vec<AdministeredServer>,
    /// Rate of refusals that are recorded, by address or by administrator.
    refusals: Cells,
    clock: Clock,
}

/// How often a request is processed if concurrent changes invalidate its checks.
const TRIES: u32 = 12;
/// How long an idempotency key is remembered, in seconds.
const KNOWN_FOR: i64 = 86_400;
/// Refusals that are recorded per minute.
const REFUSALS: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);

impl AdminApi {
    /// All routes twice: behind authentication, and for the local owner, whom the operating system
    /// authenticates at the socket.
    pub fn routers(self) -> (Router, Router) {
        let ras = self
            .ras
            .iter()
            .map(|(name, ras)| RasRole { name: name.clone(), issuer: ras.issuer().to_string() });
        let roles = RolesView {
            idp: self.idp.as_ref().map(|idp| idp.issuer().to_string()),
            ras: ras.collect(),
            gateway: self.gateway.is_some(),
        };
        let roles = Arc::new(roles);
        let document: Bytes = document_text().into();
        let document = ([(header::CONTENT_TYPE, "application/json")], document);
        let mut router = Router::new()
            .route("/roles", get(move || async move { table::json(&*roles) }))
            .route("/openapi.json", get(move || async move { document.clone() }));
        let mut servers = Vec::new();
        if let Some(idp) = self.idp {
            let table = table::idp();
            let store = idp.0.deps.store.clone();
            servers.push(AdministeredServer {
                prefix: "/idp".to_owned(),
                store,
                needs: table.needs(),
            });
            router = router.nest("/idp", table.router(idp));
        }
        for (name, ras) in self.ras {
            let prefix = format!("/ras/{name}");
            let table = table::ras();
            let store = ras.0.deps.store.clone();
            let needs = table.needs();
            router = router.nest(&prefix, table.router(ras));
            servers.push(AdministeredServer { prefix, store, needs });
        }
        if let Some(gateway) = self.gateway {
            router = router.nest(GATEWAY, gateway);
        }
        let gate = Gate {
            secret: self.secret,
            hosts: self.hosts,
            challenges: Challenges::new(self.clock.clone(), self.entropy),
            servers,
            refusals: Cells::new(REFUSALS),
            clock: self.clock,
        };
        let gate = Arc::new(gate);
        let of = Arc::clone(&gate);
        let none = move |request: Request| async move { of.nothing_at(request.uri().path()) };
        let router = router.fallback(none);
        (
            router.clone().layer(middleware::from_fn_with_state(Arc::clone(&gate), admit)),
            router.layer(middleware::from_fn_with_state(gate, admit_local)),
        )
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

/// Authenticates a request at the socket in the config's folder: the operating system admits only
/// its owner.
async fn admit_local(
    State(gate): State<Arc<Gate>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let known = Known {
        by: BY_SOCKET.to_owned(),
        name: None,
        role: AdminRole::Owner,
        server: None,
        proof: None,
    };
    let mut response = match to_bytes(body, LARGEST).await {
        Ok(_) if parts.headers.contains_key(header::ORIGIN) => {
            refuse(StatusCode::FORBIDDEN, "requests from pages in a browser are refused", None)
        }
        Ok(bytes) => gate.serve(&known, parts, bytes, next).await,
        Err(_) => too_large(),
    };
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}

fn too_large() -> Response<Body> {
    refuse(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large", None)
}

/// Largest response that gets a proof, in bytes.
const LARGEST: usize = 64 * 1024 * 1024;

/// The authenticated caller.
#[derive(Clone)]
struct Known {
    /// Their name in audit rows.
    by: String,
    /// The administrator; `None` for whoever uses the secret of the config, or its socket.
    name: Option<String>,
    role: AdminRole,
    /// The server where they are an administrator, as an index of [`Gate::servers`]; `None` means
    /// everywhere.
    server: Option<usize>,
    /// The keys for the proof of their responses, if they need one.
    proof: Option<StoredProof>,
}

impl Known {
    /// The record that the rights for their act rest on, if it is one.
    fn rests_on(&self) -> Option<RestsOn> {
        let name = self.name.clone()?;
        let stored_key = self.proof.as_ref()?.stored_key.clone();
        Some(RestsOn { name, stored_key, role: self.role })
    }
}

/// Why authentication failed.
enum Unknown {
    /// There is no secret, or a wrong one.
    Wrong,
    /// It is right, but has expired.
    Ended(Known),
}

impl Gate {
    async fn answer(&self, request: Request, next: Next) -> Result<Response<Body>, Response<Body>> {
        self.check_host(request.headers())?;
        let is_read = request.method() == Method::GET;
        if request.uri().path() == proof::CHALLENGE && is_read {
            return Ok(Json(json!({"challenge": self.challenges.make()})).into_response());
        }
        let (parts, body) = request.into_parts();
        let Some(value) = bearer(&parts.headers).map(str::to_owned) else {
            return Err(self.turn_away(&parts, Unknown::Wrong).await);
        };
        // Read the whole body before authentication, so that nobody can keep a request open across
        // their own removal. The listener limits the size.
        let bytes = to_bytes(body, LARGEST).await.map_err(|_| too_large())?;
        let identified = self.identify(&parts, &value, &bytes).await;
        let (known, response) = match identified.map_err(|error| broken(&error))? {
            Err(Unknown::Wrong) => return Err(self.turn_away(&parts, Unknown::Wrong).await),
            Err(Unknown::Ended(known)) => {
                let response = self.turn_away(&parts, Unknown::Ended(known.clone())).await;
                (known, response)
            }
            Ok(known) => {
                let response = self.serve(&known, parts, bytes, next).await;
                (known, response)
            }
        };
        if Presented::parse(&value).is_none() {
            return Ok(response);
        }
        let (mut head, body) = response.into_parts();
        let failed = |_| StatusCode::INTERNAL_SERVER_ERROR.into_response();
        let bytes = to_bytes(body, LARGEST).await.map_err(failed)?;
        let Some(StoredProof { server_key: key, .. }) = &known.proof else {
            return Ok(Response::from_parts(head, Body::from(bytes)));
        };
        let proof = proof::of_answer(key, &value, head.status.as_u16(), &bytes);
        if let Ok(value) = HeaderValue::from_str(&proof) {
            head.headers.insert(proof::ANSWER, value);
        }
        Ok(Response::from_parts(head, Body::from(bytes)))
    }

    /// Serves an authenticated caller.
    async fn serve(
        &self,
        known: &Known,
        mut parts: Parts,
        bytes: Bytes,
        next: Next,
    ) -> Response<Body> {
        if let Err(problem) = self.may(known, &parts) {
            return self.forbid(known, &parts, problem).await;
        }
        if has_nul(&parts, &bytes) {
            let hint = "remove it: no name, id or address contains one";
            return refuse(
                StatusCode::BAD_REQUEST,
                "the request contains a NUL character",
                Some(hint),
            );
        }
        let once = match self.once(known, &parts, &bytes).await {
            Ok(once) => once,
            Err(response) => return response,
        };
        let (request_id, address) = origin_of(&parts);
        let by = By {
            name: known.by.clone(),
            address,
            request_id,
            rests_on: known.rests_on(),
            once: once.as_ref().map(|(_, once)| once.clone()),
        };
        parts.extensions.insert(by);
        let mut tries = 0;
        let response = loop {
            tries += 1;
            let request = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
            let response = next.clone().run(request).await;
            if tries == TRIES || response.extensions().get::<Again>().is_none() {
                break as_problem(response).await;
            }
        };
        match once {
            Some((server, once)) => self.keep(&self.servers[server].store, &once, response).await,
            None => response,
        }
    }

    /// The idempotency key of a request; or the stored response, if it was done before.
    async fn once(
        &self,
        known: &Known,
        parts: &Parts,
        body: &[u8],
    ) -> Result<Option<(usize, Once)>, Response<Body>> {
        let bad = |detail: &str| {
            let hint = "send one key of 1 to 255 visible ASCII characters, for instance a UUID";
            Err(refuse(StatusCode::BAD_REQUEST, detail, Some(hint)))
        };
        let mut sent = parts.headers.get_all("idempotency-key").iter();
        let Some(key) = sent.next() else { return Ok(None) };
        let path = parts.uri.path();
        let server = self.servers.iter().position(|server| is_under(path, &server.prefix));
        // If there is no such operation, say so first.
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let is_none = server.is_some_and(|server| {
            let AdministeredServer { prefix, needs, .. } = &self.servers[server];
            let route = route.strip_prefix(prefix.as_str()).unwrap_or_default().to_owned();
            !needs.contains_key(&(parts.method.to_string(), route))
        });
        if is_none
            || !matches!(parts.method, Method::POST | Method::PATCH | Method::DELETE)
            || (server.is_none() && !is_under(path, GATEWAY))
        {
            return Ok(None);
        }
        let key = key.to_str().ok().filter(|key| {
            (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
        });
        let (Some(key), None) = (key, sent.next()) else {
            return bad("`Idempotency-Key` is malformed or repeated");
        };
        let Some(server) = server else {
            return bad("`Idempotency-Key` is not supported for this request");
        };
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let request = format!("{} {target}\n{}", parts.method, sha256(body));
        // What an earlier version stored.
        let unkeyed = sha256(request.as_bytes());
        let once = Once {
            // A later administrator of the same name is a different one.
            key: sha256(
                format!(
                    "{}\n{}\n{key}",
                    known.by,
                    known.rests_on().map(|by| by.stored_key).unwrap_or_default()
                )
                .as_bytes(),
            ),
            // By a key that is not stored: a body may contain a secret that can be guessed.
            request: mac(key.as_bytes(), request.as_bytes()),
            forget_after: self.clock.now().plus(KNOWN_FOR),
        };
        let store = &self.servers[server].store;
        match store.done_before(&once.key).await.map_err(|error| broken(&error))? {
            None => Ok(Some((server, once))),
            Some(DoneBefore { request, .. }) if ![&once.request, &unkeyed].contains(&&request) => {
                Err(refuse(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "this Idempotency-Key was used for another request; nothing was done",
                    Some("use a new key for each request"),
                ))
            }
            Some(DoneBefore { answer: Some((status, body)), .. }) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                let kind = [(header::CONTENT_TYPE, "application/json")];
                let mut response = if body.is_empty() {
                    status.into_response()
                } else {
                    (status, kind, body).into_response()
                };
                let yes = HeaderValue::from_static("true");
                response.headers_mut().insert("idempotent-replayed", yes);
                Err(response)
            }
            Some(DoneBefore { answer: None, .. }) => Err(refuse(
                StatusCode::CONFLICT,
                "a request with this Idempotency-Key was completed or is in progress; its answer \
                 is not known here",
                Some("read the records to see whether the change was made"),
            )),
        }
    }

    /// Stores the response to a completed act, without anything that is shown only once.
    async fn keep(&self, store: &Store, once: &Once, response: Response<Body>) -> Response<Body> {
        if !response.status().is_success() {
            return response;
        }
        let (head, body) = response.into_parts();
        let Ok(bytes) = to_bytes(body, LARGEST).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        if let Ok(Value::Object(mut members)) = serde_json::from_slice(&bytes) {
            for secret in SHOWN_ONCE {
                members.remove(secret);
            }
            text = Value::Object(members).to_string();
        }
        if let Err(error) = store.keep_answer(&once.key, head.status.as_u16(), &text).await {
            tracing::warn!(%error, "the answer to a request was not stored: if the request is \
                                    repeated, its answer says only that it was done");
        }
        Response::from_parts(head, Body::from(bytes))
    }

    /// Checks `Host` first, so that a web page cannot reach this listener by DNS rebinding.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Response<Body>> {
        let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        if !text(header::HOST).is_some_and(|host| self.hosts.iter().any(|held| held == host)) {
            let (detail, hint) = (
                "this host name is not the administration API's",
                "use the address from `[admin] listen`",
            );
            return Err(refuse(StatusCode::MISDIRECTED_REQUEST, detail, Some(hint)));
        }
        if headers.contains_key(header::ORIGIN) {
            let hint = "use `passavant admin`, or a program that sends no Origin header";
            let detail = "requests from pages in a browser are refused";
            return Err(refuse(StatusCode::FORBIDDEN, detail, Some(hint)));
        }
        Ok(())
    }

    /// Authenticates the sender by the secret itself, or by a proof of it, which is used up.
    async fn identify(
        &self,
        parts: &Parts,
        value: &str,
        body: &[u8],
    ) -> Result<Result<Known, Unknown>, StoreError> {
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let request = ProvenRequest { method: parts.method.as_str(), target, body };
        let presented = Presented::parse(value);
        let secret = Secret::new(value);
        let proves = |held: &StoredProof| match &presented {
            Some(presented) => self.challenges.check(presented, held, request).is_some(),
            None => proof::is_secret(held, &secret),
        };
        let name = match &presented {
            Some(presented) => presented.name.as_deref(),
            None => proof::name_in(&secret),
        };
        // Only valid names are looked up in the database.
        let name = match name {
            Some(name) if !is_name(name) => return Ok(Err(Unknown::Wrong)),
            name => name,
        };
        let Some(name) = name else {
            let known = Known {
                by: BY_SECRET.to_owned(),
                name: None,
                role: AdminRole::Owner,
                server: None,
                proof: Some(self.secret.clone()),
            };
            return Ok(if proves(&self.secret) { Ok(known) } else { Err(Unknown::Wrong) });
        };
        // Start with the server that the request is for: an administrator of two servers has a
        // token for each.
        let mut servers: Vec<(usize, &AdministeredServer)> =
            self.servers.iter().enumerate().collect();
        servers.sort_by_key(|(_, server)| !is_under(parts.uri.path(), &server.prefix));
        for (index, server) in servers {
            let Some(held) = server.store.usable::<Administrator>(name).await? else { continue };
            if !proves(&held.proof) {
                continue;
            }
            let has_ended = held.expires_at <= self.clock.now();
            let (role, proof) = (held.role, held.proof);
            let known = Known {
                by: held.name.clone(),
                name: Some(held.name),
                role,
                server: Some(index),
                proof: Some(proof),
            };
            return Ok(if has_ended { Err(Unknown::Ended(known)) } else { Ok(known) });
        }
        Ok(Err(Unknown::Wrong))
    }

    /// Checks that they may do this here.
    fn may(&self, known: &Known, parts: &Parts) -> Result<(), [String; 2]> {
        let Some(index) = known.server else { return Ok(()) };
        let path = parts.uri.path();
        if matches!(path, "/roles" | "/openapi.json") {
            return Ok(());
        }
        let server = &self.servers[index];
        // Gateways belong to the server in whose trail their administration is recorded.
        let prefix = if index == 0 && is_under(path, GATEWAY) { GATEWAY } else { &server.prefix };
        if !is_under(path, prefix) {
            let error = format!(
                "the administrator `{}` has a role at {} only",
                known.name.as_deref().unwrap_or_default(),
                server.said()
            );
            let hint = "an owner there can add you (`passavant admin administrator add`, with or \
                        without --ras)";
            return Err([error, hint.to_owned()]);
        }
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let route = route.strip_prefix(prefix).unwrap_or_default().to_owned();
        // An unknown operation counts as a change, unless its method only reads.
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        let unknown = if reads { Need::Read } else { Need::Change };
        let method = if reads { Method::GET } else { parts.method.clone() };
        let need = server.needs.get(&(method.to_string(), route)).copied().unwrap_or(unknown);
        if known.role < need.least() {
            let least = need.least().word();
            let error = format!(
                "this needs the role `{least}` or a higher one; the administrator has the role \
                 `{}`",
                known.role.word()
            );
            return Err([error, format!("ask someone who has the role `{least}` or a higher one")]);
        }
        Ok(())
    }

    /// The response to a caller who is not authenticated, or whose token has expired. Its record is
    /// counted by address.
    async fn turn_away(&self, parts: &Parts, unknown: Unknown) -> Response<Body> {
        let (_, address) = origin_of(parts);
        let (reason, by, [detail, hint]) = match unknown {
            Unknown::Wrong => (
                "administrator.unknown",
                None,
                [
                    "the administration secret is missing or wrong, or the token was replaced or \
                     removed",
                    "`passavant init` wrote the secret beside the config; pass its file with --secret-file",
                ],
            ),
            Unknown::Ended(known) => (
                "administrator.expired",
                Some(self.named(&known, parts)),
                [
                    "this administrator's token has ended",
                    "an owner makes another one: `passavant admin administrator renew NAME`",
                ],
            ),
        };
        tracing::warn!(%address, reason, "administration was refused");
        // Processes on this machine have as many addresses as they like.
        let is_here =
            address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || address == "::/64";
        let key = if is_here { "this machine" } else { &address };
        self.note(parts, key, reason, by).await;
        let mut response = refuse(StatusCode::UNAUTHORIZED, detail, Some(hint));
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        response
    }

    /// The response to an administrator who lacks the rights. Refusals of owners' operations are
    /// counted separately, so that others cannot crowd them out of the record.
    async fn forbid(
        &self,
        known: &Known,
        parts: &Parts,
        [detail, hint]: [String; 2],
    ) -> Response<Body> {
        let by = self.named(known, parts);
        tracing::warn!(by, "administration was refused: {detail}");
        let kind = if parts.uri.path().contains("/administrators") { "appoints" } else { "acts" };
        self.note(parts, &format!("{kind} {by}"), "administrator.role", Some(by)).await;
        refuse(StatusCode::FORBIDDEN, detail, Some(&hint))
    }

    /// An administrator's name, with the server they belong to if the request is for another one.
    fn named(&self, known: &Known, parts: &Parts) -> String {
        let name = known.name.clone().unwrap_or_default();
        match known.server.map(|index| &self.servers[index]) {
            Some(server) if !is_under(parts.uri.path(), &server.prefix) => {
                format!("{name} of {}", server.said())
            }
            _ => name,
        }
    }

    /// Records a refusal at the server that the request was for. A cell is taken before the row is
    /// written; without a cell there is no row.
    async fn note(&self, parts: &Parts, key: &str, reason: &'static str, name: Option<String>) {
        if self.refusals.take(key).is_err() {
            return;
        }
        let here = self.servers.iter().find(|server| is_under(parts.uri.path(), &server.prefix));
        let Some(server) = here.or(self.servers.first()) else { return };
        let (request_id, address) = origin_of(parts);
        let now = self.clock.now();
        let event = AuditEvent::granted(RequestEvent::Administration, now)
            .with(Detail::By, name.unwrap_or_default())
            .with(Detail::Address, address)
            .with(Detail::RequestId, request_id)
            .with(Detail::Method, shown(parts.method.as_str(), 16))
            .with(Detail::Target, shown(parts.uri.path(), 256))
            .refused(reason);
        if let Err(error) = server.store.note(event, now).await {
            tracing::error!(%error, "a refusal of administration could not be put on record");
        }
    }
}

fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the request contains a NUL, which no database accepts.
fn has_nul(parts: &Parts, body: &[u8]) -> bool {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let escapes =
        |at: usize| body[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0;
    let mut nuls = body.windows(6).enumerate().filter(|(_, six)| *six == b"\\u0000");
    target.contains("%00") || nuls.any(|(at, _)| escapes(at))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
