//! The servers under test, in a process of their own.

use crate::{
    load::{self, Measured, Plan, read_answer},
    post,
};
use axum::{Json, Router, routing::post as axum_post};
use passavant_admin::{
    AdminApi, IdpAdmin,
    client::{AdminClient, Entry},
    proof,
    types::{Groups, NewProvisioningToken, Upstreams, UserChange, Users},
};
use passavant_authority::{Context, KeyRing, LIMITS, Passwords, Rates, limited};
use passavant_idp::{Idp, IdpSettings};
use passavant_outbound::Outbound;
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::jwk::{Algorithm, SigningKey},
    oauth::client::{Client, ClientAuthentication, GovernedResource, SecretHash},
    oauth::scope::Scopes,
    oidc::authentication::Authentication,
    oidc::id_token::IdTokenClaims,
    policy::{Conditions, Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
    xaa::id_jag::{IdJagClaims, OneOrMany},
    xaa::trust::{AccountResolution, TrustedIssuer},
};
use passavant_ras::{Ras, RasSettings};
use passavant_resource::Guard;
use passavant_store::{AuditEvent, Proved, Put, Record, RefreshToken, Session, Store, User};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU32,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Child,
};

pub(crate) const SECRET: &str = "an-agents-secret-of-some-forty-characters-x";
const REFRESH: &str = "a-refresh-token-of-some-forty-characters-xx";
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

pub(crate) fn clock() -> Clock {
    Clock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp(i64::try_from(since.as_secs()).unwrap())
    })
}

pub(crate) fn entropy() -> Entropy {
    Entropy::new(|buffer| aws_lc_rs::rand::fill(buffer).unwrap())
}

pub(crate) fn key(der: &[u8]) -> SigningKey {
    SigningKey::from_pkcs8(Algorithm::ES256, der).unwrap()
}

pub(crate) fn generate() -> Vec<u8> {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
    };
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap().as_ref().to_vec()
}

pub(crate) async fn put<R: Record>(store: &Store, record: &R) {
    let event = AuditEvent::granted(
        passavant_proto::event::Event::Admin(passavant_proto::event::Act::Create, "fixture"),
        clock().now(),
    );
    assert!(store.put(record, Put::Create, event).await.unwrap());
}

/// Main function of the server process: listens, prints the addresses, and serves until it is
/// killed.
pub(crate) async fn serve(folder: &str, crowd: &Crowd) {
    crate::pin(0);
    let folder = Path::new(folder);
    let mut listeners = Vec::new();
    for _ in 0..5 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let address = |i: usize| listeners[i].local_addr().unwrap();
    let issuer = |i: usize| Issuer::parse(&format!("http://{}", address(i))).unwrap();
    let (idp_issuer, ras_issuer) = (issuer(0), issuer(1));
    let resource = Resource::parse(&format!("http://{}/mcp", address(2))).unwrap();
    let open = |name: &str| format!("sqlite:{}", folder.join(name).display());
    let idp_url = match crowd {
        Crowd::Many(Some(url)) | Crowd::Provisioned(Some(url)) => url.clone(),
        _ => open("idp.db"),
    };
    let mut idp_store = Store::open(&idp_url).await.unwrap();
    let ras_store = Store::open(&open("ras.db")).await.unwrap();
    fill(&idp_store, &ras_store, (&idp_issuer, &ras_issuer), &resource).await;
    if matches!(crowd, Crowd::Many(_)) {
        crate::crowd::fill(&idp_url).await;
    }
    let der = std::fs::read(folder.join("idp.key")).unwrap();
    let ring = |der: &[u8]| {
        KeyRing::new(SigningKey::from_pkcs8(Algorithm::ES256, der).unwrap(), &[]).unwrap()
    };
    let (clock, entropy) = (clock(), entropy());
    let context = Context::new(clock.clone(), entropy.clone(), &Outbound::new(&[]).unwrap());
    // No limits, because one person and one client send all requests.
    let most = NonZeroU32::MAX;
    let rates = Rates { failures: most, grants: most, introspections: most };
    // Open it again, to measure a start that is not the first.
    idp_store.close().await;
    let began = std::time::Instant::now();
    idp_store = Store::open(&idp_url).await.unwrap();
    let changed = idp_store.clone();
    let idp = Idp::open(
        idp_issuer.clone(),
        idp_store,
        ring(&der),
        context.clone(),
        IdpSettings { rates, ..IdpSettings::default() },
        Passwords::new(1),
    );
    let idp = idp.await.unwrap();
    let start_ms = began.elapsed().as_secs_f64() * 1000.0;
    let ras = Ras::open(
        ras_issuer.clone(),
        ras_store,
        ring(&generate()),
        context.clone(),
        RasSettings { rates, ..RasSettings::default() },
    );
    let ras = ras.await.unwrap();
    let guard = Guard::with_keys(
        resource.as_str(),
        ras_issuer.as_str(),
        context.remote_keys.clone(),
        clock,
    );
    let guard = guard.unwrap().require(["read"]).tool("draw", ["write"]);
    let answer =
        json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "ok"}]}});
    let tool = axum_post(move || {
        let answer = answer.clone();
        async move { Json(answer) }
    });
    let mcp = Router::new().route("/mcp", tool).layer(guard);
    let empty = Router::new().route("/", axum_post(|_: axum::body::Bytes| async { "" }));
    let administration = administration(address(4), idp_issuer, changed);
    let routers = [
        limited(idp.router(), LIMITS, entropy.clone(), &[]),
        limited(ras.router(), LIMITS, entropy, &[]),
        mcp,
        empty,
        administration,
    ];
    let addresses: Vec<String> =
        listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
    println!("{} {start_ms}", addresses.join(" "));
    let mut tasks = Vec::new();
    for (listener, router) in listeners.into_iter().zip(routers) {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tasks.push(tokio::spawn(async move { axum::serve(listener, service).await.unwrap() }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// The administration API, and routes that have it change a person or a group while the load runs.
pub(crate) fn administration(address: SocketAddr, issuer: Issuer, store: Store) -> Router {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let secret = Secret::new(SECRET);
    let passwords = Passwords::new(1);
    let api = AdminApi {
        secret: proof::stored(&secret),
        hosts: vec![address.to_string()],
        idp: Some(IdpAdmin::new(issuer, store, clock(), entropy(), passwords)),
        ras: BTreeMap::new(),
        gateway: None,
        clock: clock(),
        entropy: entropy(),
    };
    let outbound = Outbound::new(&[]).unwrap();
    let entry = Entry::Secret(secret);
    let idp = AdminClient::new(&format!("http://{address}"), entry, entropy(), outbound).idp();
    let of = idp.clone();
    let person = axum_post(move || async move {
        let i = NEXT.fetch_add(7919, Ordering::Relaxed) % crate::crowd::PEOPLE;
        let renamed =
            UserChange { display_name: Some(Some(format!("Name {i}"))), ..UserChange::default() };
        of.change::<Users>(&format!("u{i}"), &renamed, None).await.unwrap();
    });
    let group =
        axum_post(move |axum::extract::Path(name): axum::extract::Path<String>| async move {
            idp.delete::<Groups>(&name).await.unwrap();
        });
    Router::new().route("/person", person).route("/group/{name}", group).merge(api.routers().0)
}

pub(crate) fn agent(id: &str) -> Client {
    let hash = SecretHash { hash: Secret::new(SECRET).hash(), expires: None };
    Client {
        id: id.to_owned(),
        name: id.to_owned(),
        authentication: ClientAuthentication::Secret(vec![hash]),
        ..Client::default()
    }
}

#[allow(clippy::too_many_lines)] // a company is filled one record after the other
async fn fill(
    idp: &Store,
    ras: &Store,
    (idp_issuer, ras_issuer): (&Issuer, &Issuer),
    resource: &Resource,
) {
    let scopes: Scopes = ["read", "write"].into_iter().collect();
    put(idp, &agent("agent")).await;
    put(ras, &agent("agent-at-ras")).await;
    let user =
        User { groups: BTreeSet::from(["engineering".to_owned()]), ..User::new("erin", "erin") };
    put(idp, &user).await;
    put(
        idp,
        &ResourceAuthorizationServer {
            issuer: ras_issuer.clone(),
            name: String::new(),
            aliases: Vec::new(),
            aud_tenant: None,
            aud_sub: None,
            sub_id: None,
            id_jag_signing_alg: None,
            release: BTreeSet::new(),
            algorithm: Algorithm::default(),
            disabled: false,
        },
    )
    .await;
    put(
        idp,
        &RegisteredResource {
            resource: resource.clone(),
            authorization_server: ras_issuer.clone(),
            name: String::new(),
            scopes: scopes.clone(),
            disabled: false,
        },
    )
    .await;
    put(
        idp,
        &Connection {
            id: "engineering".to_owned(),
            idp_client_id: "agent".to_owned(),
            audience: ras_issuer.clone(),
            ras_client_id: Some("agent-at-ras".to_owned()),
            resources: vec![resource.clone()],
            scopes: scopes.clone(),
            subjects: vec![Subject::Group("engineering".to_owned())],
            conditions: Conditions::default(),
            disabled: false,
        },
    )
    .await;
    put(
        ras,
        &TrustedIssuer {
            issuer: idp_issuer.clone(),
            jwks_uri: None,
            algorithm: Algorithm::ES256,
            tenant: None,
            audience_tenant: None,
            accounts: AccountResolution { just_in_time: true, email_domains: Vec::new() },
            allow_reuse: false,
            client_documents: false,
            sign_in: None,
            disabled: false,
        },
    )
    .await;
    put(
        ras,
        &GovernedResource {
            resource: resource.clone(),
            name: String::new(),
            scopes,
            default_scopes: Scopes::default(),
            descriptions: BTreeMap::new(),
            access_token_lifetime: None,
            access_token_signing_alg: None,
            require_dpop: false,
            disabled: false,
        },
    )
    .await;
    let now = clock().now();
    let session = Session {
        sid: "session".to_owned(),
        user_id: user.id.clone(),
        authentication: authentication(now),
        expires_at: now.plus(3600),
    };
    let event = AuditEvent::granted(passavant_proto::event::RequestEvent::SignIn, now);
    assert!(
        idp.begin_session("cookie", &session, (&user, Proved::Password), None, event)
            .await
            .unwrap()
    );
    let token = RefreshToken {
        family: "family".to_owned(),
        sid: "session".to_owned(),
        user_id: user.id,
        client_id: "agent".to_owned(),
        scopes: Scopes::default(),
        authentication: authentication(now),
        dpop_jkt: None,
        resource: None,
        client_method: None,
        idle_expires_at: now.plus(3600),
        expires_at: now.plus(3600),
    };
    assert!(idp.issue_refresh_token(&Secret::new(REFRESH).hash(), &token).await.unwrap());
}

pub(crate) fn authentication(now: Timestamp) -> Authentication {
    Authentication {
        auth_time: now,
        acr: "urn:x".to_owned(),
        amr: vec!["pwd".to_owned()],
        issuer: None,
    }
}

/// The server process, as the load sees it.
pub(crate) struct Parties {
    pub(crate) start_ms: f64,
    child: Child,
    addresses: Vec<SocketAddr>,
    key: SigningKey,
    connections: usize,
    _folder: TempDir,
}

/// The people in the company.
pub(crate) enum Crowd {
    /// One person.
    One,
    /// Fifty thousand, in this PostgreSQL or in a SQLite file.
    Many(Option<String>),
    /// One person, and those who are provisioned.
    Provisioned(Option<String>),
}

impl Crowd {
    pub(crate) fn of(arguments: &[String]) -> Self {
        match arguments.first().map(String::as_str) {
            Some("many") => Self::Many(arguments.get(1).cloned()),
            Some("provisioned") => Self::Provisioned(arguments.get(1).cloned()),
            _ => Self::One,
        }
    }

    fn arguments(&self) -> Vec<String> {
        match self {
            Self::One => Vec::new(),
            Self::Many(url) => std::iter::once("many".to_owned()).chain(url.clone()).collect(),
            Self::Provisioned(url) => {
                std::iter::once("provisioned".to_owned()).chain(url.clone()).collect()
            }
        }
    }
}

pub(crate) async fn start(connections: usize, _time: Duration) -> Parties {
    start_with(connections, Crowd::One).await
}

pub(crate) async fn start_with(connections: usize, crowd: Crowd) -> Parties {
    let folder = tempfile::tempdir().unwrap();
    let der = generate();
    std::fs::write(folder.path().join("idp.key"), &der).unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["serve", folder.path().to_str().unwrap()])
        .args(crowd.arguments())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("the servers did not start");
    let (line, start_ms) = line.rsplit_once(' ').unwrap();
    let start_ms = start_ms.parse().unwrap();
    let addresses = line.split(' ').map(|address| address.parse().unwrap()).collect();
    let key = SigningKey::from_pkcs8(Algorithm::ES256, &der).unwrap();
    Parties { start_ms, child, addresses, key, connections, _folder: folder }
}

impl Parties {
    pub(crate) async fn measure(&self, plan: &Plan, time: Duration) -> Measured {
        load::measure(plan, self.connections, time).await
    }

    /// Resident memory of the server process, in MiB.
    pub(crate) fn resident(&self) -> f64 {
        let id = self.child.id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    pub(crate) async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) fn issuer(&self, i: usize) -> Issuer {
        Issuer::parse(&format!("http://{}", self.addresses[i])).unwrap()
    }

    fn resource(&self) -> String {
        format!("http://{}/mcp", self.addresses[2])
    }

    pub(crate) fn idp(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Adds the upstream `corp`; returns a token by which it provisions people.
    pub(crate) async fn provisioning(&self) -> String {
        let entry = Entry::Secret(Secret::new(SECRET));
        let at = format!("http://{}", self.addresses[4]);
        let idp = AdminClient::new(&at, entry, entropy(), Outbound::new(&[]).unwrap()).idp();
        let upstream =
            json!({"name": "corp", "issuer": "https://corp.example", "client_id": "front"});
        idp.add::<Upstreams>(&serde_json::from_value(upstream).unwrap()).await.unwrap();
        let new = NewProvisioningToken { days: None };
        idp.add_provisioning_token("corp", &new).await.unwrap().token.unwrap()
    }

    /// Changes of people, a different one each time.
    pub(crate) fn changes(&self) -> Plan {
        Plan { address: self.addresses[4], shots: vec![crate::crowd::shot("/person")] }
    }

    /// Deletions of the first groups.
    pub(crate) fn group_deletions(&self, count: usize) -> Plan {
        let shots = (0..count).map(|i| crate::crowd::shot(&format!("/group/g{i}"))).collect();
        Plan { address: self.addresses[4], shots }
    }

    /// Sends one request on a new connection.
    pub(crate) async fn ask(address: SocketAddr, shot: &crate::Shot) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = shot.0.replace("{host}", &address.to_string());
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream, &mut Vec::new()).await
    }

    pub(crate) fn empty(&self) -> Plan {
        let shot = post("/", FORM, &[], "grant_type=x");
        Plan { address: self.addresses[3], shots: vec![shot] }
    }

    fn exchange(&self, kind: &str, token: &str) -> Plan {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", passavant_proto::GRANT_TOKEN_EXCHANGE)
            .append_pair("requested_token_type", passavant_proto::TOKEN_TYPE_ID_JAG)
            .append_pair("audience", self.issuer(1).as_str())
            .append_pair("resource", &self.resource())
            .append_pair("scope", "read write")
            .append_pair("subject_token_type", kind)
            .append_pair("subject_token", token)
            .append_pair("client_id", "agent")
            .append_pair("client_secret", SECRET)
            .finish();
        Plan { address: self.addresses[0], shots: vec![post("/token", FORM, &[], &body)] }
    }

    pub(crate) fn exchange_by_id_token(&self) -> Plan {
        let now = clock().now();
        let claims = IdTokenClaims {
            iss: self.issuer(0),
            sub: "erin".to_owned(),
            aud: "agent".to_owned(),
            exp: now.plus(3600),
            iat: now,
            auth_time: now,
            acr: "urn:x".to_owned(),
            amr: vec!["pwd".to_owned()],
            sid: "session".to_owned(),
            session_expiry: None,
            origin_jti: "family".to_owned(),
            nonce: None,
            at_hash: None,
            given_name: None,
            family_name: None,
            groups: None,
            email: None,
            email_verified: None,
            name: None,
            preferred_username: None,
        };
        self.exchange(passavant_proto::TOKEN_TYPE_ID_TOKEN, &claims.sign(&self.key))
    }

    pub(crate) fn exchange_by_refresh_token(&self) -> Plan {
        self.exchange(passavant_proto::TOKEN_TYPE_REFRESH_TOKEN, REFRESH)
    }

    fn redemption(&self, jti: usize) -> crate::Shot {
        let now = clock().now();
        self.redemption_of(&self.issuer(1), &self.resource(), now, jti)
    }

    /// A redemption at another RAS.
    pub(crate) fn redemption_at(
        &self,
        ras: &Issuer,
        resource: &str,
        now: Timestamp,
    ) -> crate::Shot {
        self.redemption_of(ras, resource, now, usize::MAX)
    }

    fn redemption_of(
        &self,
        ras: &Issuer,
        resource: &str,
        now: Timestamp,
        jti: usize,
    ) -> crate::Shot {
        let claims = IdJagClaims {
            iss: self.issuer(0),
            sub: "erin".to_owned(),
            aud: ras.clone(),
            client_id: "agent-at-ras".to_owned(),
            jti: format!("assertion-{now:?}-{jti}"),
            exp: now.plus(300),
            iat: now,
            resource: Some(OneOrMany::One(resource.to_owned())),
            scope: Some("read write".to_owned()),
            tenant: None,
            aud_tenant: None,
            aud_sub: None,
            sub_id: None,
            auth_time: None,
            acr: None,
            amr: None,
            email: None,
            cnf: None,
        };
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", passavant_proto::GRANT_JWT_BEARER)
            .append_pair("assertion", &claims.sign(&self.key))
            .append_pair("client_id", "agent-at-ras")
            .append_pair("client_secret", SECRET)
            .finish();
        post("/token", FORM, &[], &body)
    }

    /// As many distinct ID-JAGs as a run can use up at most.
    pub(crate) fn assertions(&self, count: usize) -> Plan {
        let shots = (0..count).map(|i| self.redemption(i)).collect();
        Plan { address: self.addresses[1], shots }
    }

    /// A tool call with a token that is redeemed for it.
    pub(crate) async fn call(&self) -> Plan {
        let shot = self.redemption(usize::MAX);
        let mut stream = TcpStream::connect(self.addresses[1]).await.unwrap();
        let request = shot.0.replace("{host}", &self.addresses[1].to_string());
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream, &mut Vec::new()).await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(body).unwrap();
        let bearer = format!("Bearer {}", fields["access_token"].as_str().unwrap());
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                          "params": {"name": "draw", "arguments": {"text": "x".repeat(900)}}});
        let headers = [("authorization", bearer.as_str())];
        let shot = post("/mcp", "application/json", &headers, &call.to_string());
        Plan { address: self.addresses[2], shots: vec![shot] }
    }
}
