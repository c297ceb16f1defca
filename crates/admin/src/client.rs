//! A typed client of the administration API. Over TCP it proves its secret without sending it, and
//! accepts only responses that prove the same secret. At the socket in the config's folder the
//! operating system has authenticated both sides.

use crate::{
    proof,
    types::{
        Administrators, AuditQuery, AuditView, Clients, CutOffPreview, CutOffReport, CutOffTarget,
        Dependents, ExplainQuestion, Explanation, InstallationView, KeyMade, KeyView, Kind,
        LinkView, ListQuery, Listed, NewPassword, NewPersonLink, NewProvisioningToken,
        NewRecoveryLink, NewSecret, Nothing, PersonLinkQuery, PersonLinkView, Problem,
        ProvisioningTokenView, RecoveryLinkView, Renewal, RolesView, Rotation, SecretView,
        SessionView, StreamView, TransmitterView, UnreadableRecord, UpstreamLeg, UserView,
        WhoseQuery,
    },
};
use passavant_outbound::{Answer, Bounds, Outbound, OutboundError, Reach};
use passavant_proto::{others_text::shown, secret::Secret, time::Entropy};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use url::{Position, Url};

/// Largest response that is read, in bytes: lists of people are long.
const LARGEST: usize = 32 * 1024 * 1024;
/// Records per request when all of a kind are fetched.
const AT_ONCE: i64 = 500;

/// Why there is no response, or why it is an error.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "the administration API at {0} cannot be reached: {1}\n\
         hint: is `passavant serve` running?"
    )]
    Absent(String, OutboundError),
    /// Another program is listening there.
    #[error(
        "the server at {0} is not the administration API (HTTP {1}); the secret was not sent\n\
         hint: check the address; another program may be listening there"
    )]
    SomebodyElse(String, u16),
    /// The server there does not know the secret.
    #[error(
        "the server at {at} does not know {what} (HTTP {status}); its answer was ignored, and the \
         secret was not sent\n\
         hint: {hint}; or another program is listening there, or a server of another version"
    )]
    Unproven {
        /// The address.
        at: String,
        /// The kind of secret that it does not know.
        what: &'static str,
        /// The probable cause.
        hint: &'static str,
        /// HTTP status.
        status: u16,
    },
    /// It was refused.
    #[error("{}", refused(.0))]
    Refused(Problem),
    /// The response cannot be parsed.
    #[error("the administration API answered what this program cannot read: {0}")]
    Unreadable(String),
}

fn refused(problem: &Problem) -> String {
    let detail = shown(&problem.detail, 4000);
    match &problem.hint {
        Some(hint) => format!("{detail}\nhint: {}", shown(hint, 4000)),
        None => detail,
    }
}

/// How to authenticate.
#[derive(Clone)]
pub enum Entry {
    /// With the secret of the config, or with an administrator's token.
    Secret(Secret),
    /// At the socket in the config's folder, which [`Outbound::at_socket`] connects to.
    Socket,
}

/// The administration API of one process.
#[derive(Clone)]
pub struct AdminClient {
    base: String,
    entry: Entry,
    entropy: Entropy,
    outbound: Outbound,
}

/// One server that it administers.
#[derive(Clone)]
pub struct ServerClient {
    api: AdminClient,
    /// `/idp` or `/ras/NAME`.
    prefix: String,
}

/// A request.
#[derive(Default)]
struct Sent<'a> {
    body: Option<Value>,
    if_match: Option<&'a str>,
    idempotency_key: Option<&'a str>,
}

/// A text, encoded as one segment of a path.
pub fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn query(of: &impl Serialize) -> String {
    let value = serde_json::to_value(of).unwrap_or_default();
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::String(text) => {
                query.append_pair(name, text);
            }
            other => {
                query.append_pair(name, &other.to_string());
            }
        }
    }
    let query = query.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

impl AdminClient {
    /// The API at `base`, like `http://127.0.0.1:7400`.
    pub fn new(base: &str, entry: Entry, entropy: Entropy, outbound: Outbound) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), entry, entropy, outbound }
    }

    /// Its IdP.
    pub fn idp(&self) -> ServerClient {
        ServerClient { api: self.clone(), prefix: "/idp".to_owned() }
    }

    /// One of its RASes, by the name that the config gives it.
    pub fn ras(&self, name: &str) -> ServerClient {
        ServerClient { api: self.clone(), prefix: format!("/ras/{}", segment(name)) }
    }

    /// The roles that run there.
    pub async fn roles(&self) -> Result<RolesView, ClientError> {
        self.ask("GET", "/roles", Sent::default()).await
    }

    /// Any request, for operations that have no method here.
    pub async fn raw(
        &self,
        method: &str,
        target: &str,
        body: Option<Value>,
    ) -> Result<Value, ClientError> {
        self.ask(method, target, Sent { body, ..Sent::default() }).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        target: &str,
        sent: Sent<'_>,
    ) -> Result<T, ClientError> {
        let answer = self.send(method, target, sent).await?;
        let read = |error: serde_json::Error| ClientError::Unreadable(error.to_string());
        if !(200..300).contains(&answer.status) {
            let problem = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Problem {
                status: answer.status,
                detail: format!("HTTP {}", answer.status),
                ..Problem::default()
            });
            return Err(ClientError::Refused(problem));
        }
        let nothing = answer.body.is_empty();
        serde_json::from_slice(if nothing { b"null" } else { &answer.body }).map_err(read)
    }

    async fn send(
        &self,
        method: &str,
        target: &str,
        sent: Sent<'_>,
    ) -> Result<Answer, ClientError> {
        let base = &self.base;
        let absent = |error| ClientError::Absent(base.clone(), error);
        let url = Url::parse(&format!("{base}{target}"))
            .map_err(|error| ClientError::Unreadable(error.to_string()))?;
        let target = &url[Position::BeforePath..Position::AfterQuery];
        let bytes = sent.body.as_ref().map(Value::to_string).unwrap_or_default();
        let bearer = match &self.entry {
            Entry::Socket => None,
            Entry::Secret(secret) => {
                let challenge = self.challenge().await?;
                let nonce = self.entropy.id();
                let request = proof::ProvenRequest { method, target, body: bytes.as_bytes() };
                Some(proof::of_request(secret, (&challenge, &nonce), request))
            }
        };
        let headers: Vec<(&str, &str)> = [
            sent.if_match.map(|tag| ("if-match", tag)),
            sent.idempotency_key.map(|key| ("idempotency-key", key)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let bounds = Bounds { bytes: LARGEST, ..Bounds::default() };
        let answer = self
            .outbound
            .json_within(
                (method, url.as_str()),
                Reach::Loopback,
                bearer.as_deref(),
                sent.body.as_ref(),
                (&headers, bounds),
            )
            .await
            .map_err(absent)?;
        if let (Entry::Secret(secret), Some(bearer)) = (&self.entry, &bearer) {
            let given = (answer.status, answer.body.as_ref());
            let shown = answer.headers.get(proof::ANSWER).and_then(|value| value.to_str().ok());
            if !shown.is_some_and(|shown| proof::is_answer(secret, bearer, given, shown)) {
                return Err(unproven(base, secret, answer.status));
            }
        }
        Ok(answer)
    }

    /// A challenge of the server, valid for one request.
    async fn challenge(&self) -> Result<String, ClientError> {
        let base = &self.base;
        let url = format!("{base}{}", proof::CHALLENGE);
        let asked = self.outbound.json("GET", &url, Reach::Loopback, None, None).await;
        let asked = asked.map_err(|error| ClientError::Absent(base.clone(), error))?;
        let challenge = asked.json::<Value>().ok().and_then(|value| {
            let text = value.get("challenge")?.as_str()?;
            (asked.status == 200 && text.len() <= 200 && text.is_ascii()).then(|| text.to_owned())
        });
        challenge.ok_or_else(|| ClientError::SomebodyElse(base.clone(), asked.status))
    }
}

fn unproven(at: &str, secret: &Secret, status: u16) -> ClientError {
    let token = proof::name_in(secret).is_some();
    ClientError::Unproven {
        at: at.to_owned(),
        what: if token { "this administrator's token" } else { "this administration secret" },
        hint: if token {
            "it may have been replaced or removed (ask an owner), or belong to another server \
             (--ras NAME, --config FILE)"
        } else {
            "is this the server's secret file?"
        },
        status,
    }
}

impl ServerClient {
    async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        sent: Sent<'_>,
    ) -> Result<T, ClientError> {
        self.api.ask(method, &format!("{}{path}", self.prefix), sent).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask("GET", path, Sent::default()).await
    }

    async fn said<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = Some(serde_json::to_value(body).unwrap_or_default());
        self.ask(method, path, Sent { body, ..Sent::default() }).await
    }

    /// Some of the records of a kind.
    pub async fn list<K: Kind>(&self, wanted: &ListQuery) -> Result<Listed<K::View>, ClientError> {
        self.get(&format!("/{}{}", K::PATH, query(wanted))).await
    }

    /// All records of a kind, and those that cannot be read.
    pub async fn all<K: Kind>(
        &self,
        search: Option<&str>,
    ) -> Result<(Vec<K::View>, Vec<UnreadableRecord>), ClientError> {
        let (mut all, mut unreadable) = (Vec::new(), Vec::new());
        let mut wanted =
            ListQuery { search: search.map(str::to_owned), limit: Some(AT_ONCE), after: None };
        loop {
            let page = self.list::<K>(&wanted).await?;
            all.extend(page.items);
            unreadable.extend(page.unreadable);
            match page.next {
                Some(next) => wanted.after = Some(next),
                None => return Ok((all, unreadable)),
            }
        }
    }

    /// Adds a record.
    pub async fn add<K: Kind>(&self, new: &K::New) -> Result<K::View, ClientError> {
        self.said("POST", &format!("/{}", K::PATH), new).await
    }

    /// Like [`Self::add`], but carried out once, however often it is sent with this key.
    pub async fn add_once<K: Kind>(&self, new: &K::New, key: &str) -> Result<K::View, ClientError> {
        let body = Some(serde_json::to_value(new).unwrap_or_default());
        let sent = Sent { body, idempotency_key: Some(key), ..Sent::default() };
        self.ask("POST", &format!("/{}", K::PATH), sent).await
    }

    /// Shows a record, by its id or name.
    pub async fn show<K: Kind>(&self, id: &str) -> Result<K::View, ClientError> {
        Ok(self.show_tagged::<K>(id).await?.0)
    }

    /// Like [`Self::show`], with the ETag.
    pub async fn show_tagged<K: Kind>(&self, id: &str) -> Result<(K::View, String), ClientError> {
        let target = format!("{}/{}/{}", self.prefix, K::PATH, segment(id));
        let answer = self.api.send("GET", &target, Sent::default()).await?;
        let tag = answer.headers.get("etag").and_then(|tag| tag.to_str().ok());
        let tag = tag.unwrap_or_default().to_owned();
        match answer.json::<K::View>() {
            Ok(view) if answer.status == 200 => Ok((view, tag)),
            _ => Err(ClientError::Refused(answer.json().unwrap_or_else(|_| Problem {
                status: answer.status,
                detail: format!("HTTP {}", answer.status),
                ..Problem::default()
            }))),
        }
    }

    /// Changes a record; members that are left out stay.
    pub async fn change<K: Kind>(
        &self,
        id: &str,
        change: &K::Change,
        if_match: Option<&str>,
    ) -> Result<K::View, ClientError> {
        let body = Some(serde_json::to_value(change).unwrap_or_default());
        let path = format!("/{}/{}", K::PATH, segment(id));
        self.ask("PATCH", &path, Sent { body, if_match, ..Sent::default() }).await
    }

    /// The records that are deleted together with this one.
    pub async fn dependents<K: Kind>(&self, id: &str) -> Result<Dependents, ClientError> {
        self.get(&format!("/{}/{}/dependents", K::PATH, segment(id))).await
    }

    /// Deletes a record, with the records that refer to it.
    pub async fn delete<K: Kind>(&self, id: &str) -> Result<(), ClientError> {
        self.ask("DELETE", &format!("/{}/{}", K::PATH, segment(id)), Sent::default()).await
    }

    /// Disables or enables a record.
    pub async fn switch<K: Kind>(&self, id: &str, on: bool) -> Result<K::View, ClientError> {
        let act = if on { "enable" } else { "disable" };
        self.ask("POST", &format!("/{}/{}/{act}", K::PATH, segment(id)), Sent::default()).await
    }

    /// Sets a person's password.
    pub async fn set_password(&self, id: &str, password: &Secret) -> Result<UserView, ClientError> {
        let new = NewPassword { password: password.expose().to_owned() };
        self.said("POST", &format!("/users/{}/password", segment(id)), &new).await
    }

    /// Makes a link by which a person gets in once.
    pub async fn recovery_link(
        &self,
        id: &str,
        new: &NewRecoveryLink,
    ) -> Result<RecoveryLinkView, ClientError> {
        self.said("POST", &format!("/users/{}/recovery-link", segment(id)), new).await
    }

    /// Gives a client another secret.
    pub async fn new_secret(&self, id: &str, overlap: i64) -> Result<SecretView, ClientError> {
        let path = format!("/{}/{}/secret", Clients::PATH, segment(id));
        self.said("POST", &path, &NewSecret { overlap }).await
    }

    /// Gives an administrator another token.
    pub async fn renew(
        &self,
        name: &str,
        days: Option<i64>,
    ) -> Result<<Administrators as Kind>::View, ClientError> {
        let path = format!("/{}/{}/renew", Administrators::PATH, segment(name));
        self.said("POST", &path, &Renewal { days }).await
    }

    /// Installations.
    pub async fn installations(
        &self,
        whose: &WhoseQuery,
    ) -> Result<Listed<InstallationView>, ClientError> {
        self.get(&format!("/installations{}", query(whose))).await
    }

    /// Revokes an installation.
    pub async fn revoke_installation(&self, id: &str) -> Result<(), ClientError> {
        self.ask("DELETE", &format!("/installations/{}", segment(id)), Sent::default()).await
    }

    /// Live sessions.
    pub async fn sessions(&self, whose: &WhoseQuery) -> Result<Listed<SessionView>, ClientError> {
        self.get(&format!("/sessions{}", query(whose))).await
    }

    /// Ends a session.
    pub async fn end_session(&self, id: &str) -> Result<(), ClientError> {
        self.ask("DELETE", &format!("/sessions/{}", segment(id)), Sent::default()).await
    }

    /// What cutting something off would end now.
    pub async fn preview_cut_off(
        &self,
        target: CutOffTarget,
        name: &str,
    ) -> Result<CutOffPreview, ClientError> {
        self.said("POST", "/cut-offs/preview", &json!({"target": target, "name": name})).await
    }

    /// Cuts something off.
    pub async fn cut_off(
        &self,
        target: CutOffTarget,
        name: &str,
    ) -> Result<CutOffReport, ClientError> {
        self.said("POST", "/cut-offs", &json!({"target": target, "name": name})).await
    }

    /// What a cut-off has ended until now.
    pub async fn cut_off_report(&self, id: i64) -> Result<CutOffReport, ClientError> {
        self.get(&format!("/cut-offs/{id}")).await
    }

    /// Signing keys.
    pub async fn keys(&self) -> Result<Listed<KeyView>, ClientError> {
        self.get("/keys").await
    }

    /// Makes a new signing key.
    pub async fn rotate_key(&self, rotation: &Rotation) -> Result<KeyMade, ClientError> {
        self.said("POST", "/keys/rotate", rotation).await
    }

    /// Has the next key sign in place of this one.
    pub async fn retire_key(&self, kid: &str) -> Result<KeyMade, ClientError> {
        self.ask("POST", &format!("/keys/{}/retire", segment(kid)), Sent::default()).await
    }

    /// Removes a signing key and all earlier ones.
    pub async fn remove_key(&self, kid: &str) -> Result<(), ClientError> {
        self.ask("DELETE", &format!("/keys/{}", segment(kid)), Sent::default()).await
    }

    /// The people to whom an account is linked.
    pub async fn links(&self, account: &str) -> Result<Listed<LinkView>, ClientError> {
        self.get(&format!("/accounts/{}/links", segment(account))).await
    }

    /// Removes a link between an account and a person.
    pub async fn unlink(&self, link: &LinkView) -> Result<(), ClientError> {
        self.ask("DELETE", &format!("/links{}", query(link)), Sent::default()).await
    }

    /// The people of an upstream who are linked to users.
    pub async fn person_links(
        &self,
        upstream: &str,
    ) -> Result<Listed<PersonLinkView>, ClientError> {
        self.get(&format!("/upstreams/{}/links", segment(upstream))).await
    }

    /// Links a person of an upstream to a user.
    pub async fn link_person(
        &self,
        upstream: &str,
        link: &NewPersonLink,
    ) -> Result<Nothing, ClientError> {
        self.said("POST", &format!("/upstreams/{}/links", segment(upstream)), link).await
    }

    /// Unlinks a person of an upstream.
    pub async fn unlink_person(
        &self,
        upstream: &str,
        link: &PersonLinkQuery,
    ) -> Result<(), ClientError> {
        let path = format!("/upstreams/{}/links{}", segment(upstream), query(link));
        self.ask("DELETE", &path, Sent::default()).await
    }

    /// The tokens with which an upstream provisions people.
    pub async fn provisioning_tokens(
        &self,
        upstream: &str,
    ) -> Result<Listed<ProvisioningTokenView>, ClientError> {
        self.get(&format!("/upstreams/{}/provisioning-tokens", segment(upstream))).await
    }

    /// Makes a token with which an upstream provisions people.
    pub async fn add_provisioning_token(
        &self,
        upstream: &str,
        new: &NewProvisioningToken,
    ) -> Result<ProvisioningTokenView, ClientError> {
        let path = format!("/upstreams/{}/provisioning-tokens", segment(upstream));
        self.said("POST", &path, new).await
    }

    /// Revokes one.
    pub async fn revoke_provisioning_token(
        &self,
        upstream: &str,
        token: &str,
    ) -> Result<(), ClientError> {
        let path =
            format!("/upstreams/{}/provisioning-tokens/{}", segment(upstream), segment(token));
        self.ask("DELETE", &path, Sent::default()).await
    }

    /// Gives a transmitter of signals another token.
    pub async fn renew_transmitter(&self, name: &str) -> Result<TransmitterView, ClientError> {
        let path = format!("/transmitters/{}/token", segment(name));
        self.ask("POST", &path, Sent::default()).await
    }

    /// The streams of clients that listen to signals.
    pub async fn streams(&self) -> Result<Listed<StreamView>, ClientError> {
        self.get("/streams").await
    }

    /// Deletes the stream of a client.
    pub async fn delete_stream(&self, client: &str) -> Result<(), ClientError> {
        self.ask("DELETE", &format!("/streams/{}", segment(client)), Sent::default()).await
    }

    /// Looks at every leg of an upstream.
    pub async fn check_upstream(&self, name: &str) -> Result<Listed<UpstreamLeg>, ClientError> {
        let path = format!("/upstreams/{}/check", segment(name));
        self.ask("POST", &path, Sent::default()).await
    }

    /// The audit trail, newest first.
    pub async fn audit(&self, wanted: &AuditQuery) -> Result<Listed<AuditView>, ClientError> {
        self.get(&format!("/audit{}", query(wanted))).await
    }

    /// Explains what the exchange would decide.
    pub async fn explain(&self, question: &ExplainQuestion) -> Result<Explanation, ClientError> {
        self.said("POST", "/explain", question).await
    }
}
