//! An identity provider in front of which the IdP stands: it says what a test tells it to say.

use crate::{
    forge::Key,
    outsider::Browser,
    world::{AGENT, Ask, CALLBACK, Reply, World},
};
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use passavant_admin::{
    UpstreamTools,
    client::{AdminClient, Entry, ServerClient},
    types::Upstreams,
};
use passavant_authority::Sealing;
use passavant_outbound::Outbound;
use passavant_proto::time::Clock;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What it says, and what it was asked.
pub struct Said {
    /// Claims of ID tokens, besides `iss`, `aud`, `iat`, `exp` and `nonce`; these can be replaced,
    /// and taken away with `null`.
    pub claims: Value,
    /// Header members of ID tokens.
    pub header: Value,
    /// The key that signs ID tokens, if it is not the published one.
    pub forged: Option<Key>,
    /// Members of the discovery document to replace.
    pub metadata: Value,
    /// `iss` of the authorization response.
    pub iss: Option<String>,
    /// What the authorization endpoint answers instead of a code.
    pub error: Option<String>,
    /// Whether a code brings a refresh token.
    pub refreshes: bool,
    /// What a refresh is answered with: a status and a body; `None`: new tokens.
    pub refresh: Option<(u16, Value)>,
    /// What its `UserInfo` endpoint says, with a status; `None`: it has none.
    pub user_info: Option<(u16, Value)>,
    /// What every token request is answered with.
    pub token: Option<(u16, Value)>,
    /// Whether it takes requests and answers none.
    pub hangs: bool,
    /// How long a refresh takes.
    pub slow: Duration,
    /// How long the keys take.
    pub slow_keys: Duration,
    /// How long the discovery document takes.
    pub slow_metadata: Duration,
    /// Parameters of authorization requests.
    pub authorized: Vec<HashMap<String, String>>,
    /// Parameters of token requests, with the `Authorization` header as `authorization`.
    pub asked: Vec<HashMap<String, String>>,
    /// How often the keys were fetched.
    pub key_fetches: usize,
    base: String,
    nonces: HashMap<String, String>,
    count: usize,
    /// The refresh token that is good now.
    pub live: String,
}

impl Said {
    /// Where people are sent.
    pub fn metadata_url(&self) -> String {
        self.base.clone()
    }
}

/// A running one. Cheap to clone.
#[derive(Clone)]
pub struct FakeUpstream {
    /// Its issuer.
    pub issuer: String,
    /// Its client.
    pub client_id: String,
    base: String,
    path: String,
    key: Arc<Key>,
    clock: Clock,
    said: Arc<Mutex<Said>>,
}

impl FakeUpstream {
    /// Starts one whose issuer has this path: empty, or `/TENANT/v2.0`.
    pub async fn start(world: &World, path: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let said = Said {
            claims: json!({"sub": "erin-there", "email": "erin@acme.example",
                "email_verified": true, "preferred_username": "erin.upstream", "name": "Erin There",
                "auth_time": world.now().0, "acr": "there:strong", "amr": ["hwk", "user"],
                "groups": ["Eng", "admins"]}),
            header: json!({}),
            forged: None,
            metadata: json!({}),
            iss: None,
            error: None,
            refreshes: true,
            refresh: None,
            user_info: None,
            token: None,
            hangs: false,
            slow: Duration::ZERO,
            slow_keys: Duration::ZERO,
            slow_metadata: Duration::ZERO,
            authorized: Vec::new(),
            asked: Vec::new(),
            key_fetches: 0,
            base: base.clone(),
            nonces: HashMap::new(),
            count: 0,
            live: String::new(),
        };
        let fake = Self {
            issuer: format!("{base}{path}"),
            client_id: "passavant-there".to_owned(),
            base,
            path: path.to_owned(),
            key: Arc::new(Key::new()),
            clock: world.clock(),
            said: Arc::new(Mutex::new(said)),
        };
        let router = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        fake
    }

    /// What it says, to be changed.
    pub fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a claim; `null` takes it away.
    pub fn claim(&self, name: &str, value: Value) {
        self.said().claims[name] = value;
    }

    /// Refreshes it was asked for.
    pub fn refreshed(&self) -> usize {
        let refreshes = |form: &&HashMap<String, String>| form["grant_type"] == "refresh_token";
        self.said().asked.iter().filter(refreshes).count()
    }

    /// Something else that it signs.
    pub fn sign(&self, typ: &str, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.key.kid(), "typ": typ});
        self.key.sign(&header.to_string(), claims.to_string().as_bytes())
    }

    fn metadata(&self, issuer: &str) -> Value {
        let mut metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{}/authorize", self.base),
            "token_endpoint": format!("{}/token", self.base),
            "jwks_uri": format!("{}/keys", self.base),
            "scopes_supported": ["openid", "offline_access"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        if self.said().user_info.is_some() {
            metadata["userinfo_endpoint"] = format!("{}/userinfo", self.base).into();
        }
        for (name, value) in self.said().metadata.as_object().unwrap() {
            metadata[name] = value.clone();
        }
        metadata
    }

    fn id_token(&self, nonce: Option<&str>) -> String {
        let said = self.said();
        let now = self.clock.now().0;
        let mut claims = json!({"iss": self.issuer, "aud": self.client_id, "iat": now,
                                "exp": now + 600});
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        for (name, value) in said.claims.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let mut header = json!({"alg": "ES256", "kid": self.key.kid()});
        for (name, value) in said.header.as_object().unwrap() {
            header[name] = value.clone();
        }
        let key = said.forged.as_ref().unwrap_or(&self.key);
        key.sign(&header.to_string(), claims.to_string().as_bytes())
    }
}

fn redirect(to: String) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
}

fn json_of(status: u16, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::from_u16(status).unwrap(), kind, body.to_string()).into_response()
}

fn pairs(text: &[u8]) -> HashMap<String, String> {
    form_urlencoded::parse(text).into_owned().collect()
}

async fn answer(State(fake): State<FakeUpstream>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let (hangs, slow) = {
        let said = fake.said();
        (said.hangs, said.slow_metadata)
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    // The tenants of one product have documents of their own.
    if let Some(path) = path.strip_suffix("/.well-known/openid-configuration") {
        tokio::time::sleep(slow).await;
        let issuer = if path == fake.path && path.contains("organizations") {
            fake.issuer.replace("organizations", "{tenantid}")
        } else if path.starts_with("/.well-known") {
            return StatusCode::NOT_FOUND.into_response();
        } else {
            format!("{}{path}", fake.base)
        };
        return json_of(200, &fake.metadata(&issuer));
    }
    match path.as_str() {
        "/keys" => {
            let slow = {
                let mut said = fake.said();
                said.key_fetches += 1;
                said.slow_keys
            };
            tokio::time::sleep(slow).await;
            json_of(200, &json!({"keys": [fake.key.jwk()]}))
        }
        "/userinfo" => {
            let bearer = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
            assert_eq!(bearer, Some("Bearer theirs"));
            let (status, body) = fake.said().user_info.clone().unwrap();
            json_of(status, &body)
        }
        "/authorize" => {
            let asked = pairs(parts.uri.query().unwrap_or_default().as_bytes());
            let mut said = fake.said();
            said.count += 1;
            let code = format!("code-{}", said.count);
            said.nonces.insert(code.clone(), asked["nonce"].clone());
            let mut query = form_urlencoded::Serializer::new(String::new());
            match &said.error {
                Some(error) => query.append_pair("error", error),
                None => query.append_pair("code", &code),
            };
            query.append_pair("state", &asked["state"]);
            query.extend_pairs(said.iss.iter().map(|iss| ("iss", iss)));
            let to = format!("{}?{}", asked["redirect_uri"], query.finish());
            said.authorized.push(asked);
            drop(said);
            redirect(to)
        }
        "/token" => {
            let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let mut form = pairs(&bytes);
            if let Some(basic) = parts.headers.get("authorization") {
                form.insert("authorization".to_owned(), basic.to_str().unwrap().to_owned());
            }
            token(&fake, form).await
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn token(fake: &FakeUpstream, form: HashMap<String, String>) -> Response {
    let slow = {
        let mut said = fake.said();
        said.asked.push(form.clone());
        if let Some((status, body)) = &said.token {
            return json_of(*status, body);
        }
        said.slow
    };
    let mut answer = json!({"access_token": "theirs", "token_type": "Bearer", "expires_in": 60});
    if form["grant_type"] == "refresh_token" {
        tokio::time::sleep(slow).await;
        let mut said = fake.said();
        if let Some((status, body)) = &said.refresh {
            return json_of(*status, body);
        }
        if form["refresh_token"] != said.live {
            return json_of(400, &json!({"error": "invalid_grant"}));
        }
        said.count += 1;
        said.live = format!("refresh-{}", said.count);
        answer["refresh_token"] = said.live.clone().into();
        drop(said);
        answer["id_token"] = fake.id_token(None).into();
        return json_of(200, &answer);
    }
    let nonce = fake.said().nonces.remove(&form["code"]);
    let Some(nonce) = nonce else {
        return json_of(400, &json!({"error": "invalid_grant"}));
    };
    answer["id_token"] = fake.id_token(Some(&nonce)).into();
    let mut said = fake.said();
    if said.refreshes {
        said.count += 1;
        said.live = format!("refresh-{}", said.count);
        answer["refresh_token"] = said.live.clone().into();
    }
    drop(said);
    json_of(200, &answer)
}

/// Sealing for tests: what is sealed differs from what it was, and is bound to its label.
pub fn sealing() -> Sealing {
    let turned = |bytes: &[u8]| bytes.iter().map(|byte| byte ^ 0x5a).collect::<Vec<u8>>();
    Sealing::new(
        move |label, value| {
            let text = [label.as_bytes(), b"\n", value].concat();
            Ok(STANDARD.encode(turned(&text)))
        },
        move |label, sealed| {
            let bytes = turned(&STANDARD.decode(sealed).map_err(|error| error.to_string())?);
            let own = bytes.strip_prefix(format!("{label}\n").as_bytes());
            own.map(<[u8]>::to_vec).ok_or_else(|| "it was sealed for something else".to_owned())
        },
    )
}

/// What administration of upstreams needs.
pub fn tools(idp: &passavant_idp::Idp) -> UpstreamTools {
    let idp = idp.clone();
    UpstreamTools {
        sealing: sealing(),
        certificate: Some(Arc::new(|name, _| {
            Ok((format!("certificate of {name}").into_bytes(), crate::forge::rsa_der()))
        })),
        check: Some(Arc::new(move |upstream| {
            let idp = idp.clone();
            Box::pin(async move {
                let legs = idp.check_upstream(&upstream).await.into_iter();
                let told = |leg: passavant_idp::Leg| passavant_admin::types::UpstreamLeg {
                    leg: leg.name.to_owned(),
                    works: leg.works,
                    found: leg.found,
                    hint: leg.hint,
                };
                legs.map(told).collect()
            })
        })),
    }
}

impl World {
    /// Administration of the IdP.
    pub fn idp_admin(&self) -> ServerClient {
        let outbound = Outbound::new(&[]).unwrap();
        let entry = Entry::Secret(self.admin_secret.clone());
        AdminClient::new(&self.admin, entry, self.entropy(), outbound).idp()
    }

    /// Adds an upstream, with what a test wants to be another.
    pub async fn add_upstream(&self, name: &str, fake: &FakeUpstream, more: Value) {
        let mut new = json!({"name": name, "issuer": fake.issuer, "client_id": fake.client_id,
            "id_token_signing_alg": "ES256", "just_in_time": true});
        for (member, value) in more.as_object().unwrap() {
            new[member] = value.clone();
        }
        let new = serde_json::from_value(new).unwrap();
        self.idp_admin().add::<Upstreams>(&new).await.unwrap();
    }

    /// Follows a sign-in by way of an upstream, until it stops at a page, or returns to the client:
    /// the URL, and the response.
    pub async fn follow(&self, browser: &mut Browser, url: &str) -> (String, Reply) {
        let mut at = url.to_owned();
        for _ in 0..12 {
            if at.starts_with(CALLBACK) {
                let reply = Reply {
                    status: 0,
                    headers: axum::http::HeaderMap::new(),
                    json: Value::Null,
                    text: String::new(),
                };
                return (at, reply);
            }
            let reply = browser.get(self, &at).await;
            if !(300..400).contains(&reply.status) {
                return (at, reply);
            }
            at = url::Url::parse(&at).unwrap().join(reply.header("location")).unwrap().to_string();
        }
        panic!("it goes in circles: {at}");
    }

    /// Signs in by way of an upstream: the answer of the token endpoint, or the page where it
    /// stopped.
    pub async fn through(
        &self,
        browser: &mut Browser,
        upstream: &str,
        more: &str,
    ) -> Result<Value, Reply> {
        let (url, verifier) = self.authorize_url(AGENT, &format!("&upstream={upstream}{more}"));
        let (at, reply) = self.follow(browser, &url).await;
        let back: BTreeMap<String, String> =
            url::Url::parse(&at).unwrap().query_pairs().into_owned().collect();
        let Some(code) = back.get("code").filter(|_| at.starts_with(CALLBACK)) else {
            let told = Reply { text: format!("{at}\n{}", reply.text), ..reply };
            return Err(told);
        };
        let reply = self.send(&self.redeem_at_idp(code, &verifier)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        Ok(reply.json)
    }

    /// The redemption of a code at the IdP.
    pub fn redeem_at_idp(&self, code: &str, verifier: &str) -> Ask {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", verifier),
        ];
        self.ask(&self.idp, "/token", &form)
    }
}
