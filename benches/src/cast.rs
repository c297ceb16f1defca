//! The parties of a cut-off, in a process of their own: an identity provider, two authorization servers and
//! ten gateways before MCP servers whose streams go on and on. On PostgreSQL each server has two nodes behind
//! one address, and connections go to them in turn.

use crate::{
    cut_off::GATEWAYS,
    parties::{
        FORM, SECRET, administration, agent, authentication, clock, entropy, generate, key, put,
    },
    post,
};
use axum::{Router, body::Body, http::Response, routing::post as axum_post};
use futures::StreamExt;
use passavant_authority::{Context, KeyRing, LIMITS, Passwords, Rates, limited};
use passavant_gateway::{Gateway, GatewayDeps, RouteSettings, Stands, Trail, Unavailable};
use passavant_idp::{Idp, IdpSettings};
use passavant_outbound::Outbound;
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::jwk::{Algorithm, SigningKey},
    mcp::operation_policy::{Rule, Rules},
    oauth::client::GovernedResource,
    oauth::scope::Scopes,
    oidc::id_token::IdTokenClaims,
    policy::{Conditions, Connection, RegisteredResource, ResourceAuthorizationServer, Subject},
    secret::Secret,
    xaa::trust::{AccountResolution, TrustedIssuer},
};
use passavant_ras::{Ras, RasSettings};
use passavant_resource::{Introspection, WithoutFeed};
use passavant_store::{AuditEvent, Proved, Session, Store, User};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU32,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Child,
};

/// The process, as the load sees it.
pub(crate) struct Cast {
    child: Child,
    pub(crate) idp: SocketAddr,
    pub(crate) ras: [SocketAddr; 2],
    pub(crate) admin: SocketAddr,
    pub(crate) gateways: Vec<SocketAddr>,
    key: SigningKey,
    _folder: TempDir,
}

pub(crate) async fn start(people: usize, database: Option<&str>) -> Cast {
    let folder = tempfile::tempdir().unwrap();
    let der = generate();
    std::fs::write(folder.path().join("idp.key"), &der).unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["cast", folder.path().to_str().unwrap(), &people.to_string()])
        .args(database)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("the parties did not start");
    let all: Vec<SocketAddr> = line.split(' ').map(|text| text.parse().unwrap()).collect();
    Cast {
        child,
        idp: all[0],
        ras: [all[1], all[2]],
        admin: all[3],
        gateways: all[4..].to_vec(),
        key: key(&der),
        _folder: folder,
    }
}

impl Cast {
    pub(crate) async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }

    /// A person's token exchange.
    pub(crate) fn exchange(&self, person: usize, ras: SocketAddr, resource: &str) -> crate::Shot {
        let now = clock().now();
        let claims = IdTokenClaims {
            iss: Issuer::parse(&format!("http://{}", self.idp)).unwrap(),
            sub: format!("person-{person}"),
            aud: "agent".to_owned(),
            exp: now.plus(3600),
            iat: now,
            auth_time: now,
            acr: "urn:x".to_owned(),
            amr: vec!["pwd".to_owned()],
            sid: format!("session-{person}"),
            session_expiry: None,
            origin_jti: format!("family-{person}"),
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
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", passavant_proto::GRANT_TOKEN_EXCHANGE)
            .append_pair("requested_token_type", passavant_proto::TOKEN_TYPE_ID_JAG)
            .append_pair("audience", &format!("http://{ras}"))
            .append_pair("resource", resource)
            .append_pair("subject_token_type", passavant_proto::TOKEN_TYPE_ID_TOKEN)
            .append_pair("subject_token", &claims.sign(&self.key))
            .append_pair("client_id", "agent")
            .append_pair("client_secret", SECRET)
            .finish();
        post("/token", FORM, &[], &body)
    }
}

/// The redemption of an ID-JAG.
pub(crate) fn redemption(id_jag: &str) -> crate::Shot {
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", passavant_proto::GRANT_JWT_BEARER)
        .append_pair("assertion", id_jag)
        .append_pair("client_id", "agent-at-ras")
        .append_pair("client_secret", SECRET)
        .finish();
    post("/token", FORM, &[], &body)
}

/// One authorization server or identity provider: its address, and the nodes behind it.
struct Place {
    address: SocketAddr,
    nodes: Vec<TcpListener>,
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Place {
    async fn of(nodes: usize) -> Self {
        let (front, address) = listener().await;
        if nodes == 1 {
            return Self { address, nodes: vec![front] };
        }
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for _ in 0..nodes {
            let (listener, address) = listener().await;
            listeners.push(listener);
            addresses.push(address);
        }
        tokio::spawn(async move {
            let mut turn = addresses.iter().cycle();
            loop {
                let (mut from, _) = front.accept().await.unwrap();
                let to = *turn.next().unwrap();
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Self { address, nodes: listeners }
    }

    fn issuer(&self) -> Issuer {
        Issuer::parse(&format!("http://{}", self.address)).unwrap()
    }
}

async fn databases(folder: &Path, database: Option<&str>) -> [String; 3] {
    let names = ["cut_off_idp", "cut_off_ras_one", "cut_off_ras_two"];
    let Some(url) = database else {
        return names.map(|name| format!("sqlite:{}", folder.join(name).display()));
    };
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(url).await.unwrap();
    for name in names {
        for sql in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        }
    }
    let base = url.rsplit_once('/').unwrap().0;
    names.map(|name| format!("{base}/{name}"))
}

fn serve(listener: TcpListener, router: Router) {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
}

/// Main function of the process.
pub(crate) async fn run(folder: &str, people: usize, database: Option<&str>) {
    let folder = Path::new(folder);
    let nodes = if database.is_some() { 2 } else { 1 };
    let [idp_url, one_url, two_url] = databases(folder, database).await;
    let idp = Place::of(nodes).await;
    let ras = [Place::of(nodes).await, Place::of(nodes).await];
    let ras_addresses = [ras[0].address, ras[1].address];
    let (admin_listener, admin) = listener().await;
    let mut gateways = Vec::new();
    for _ in 0..2 * GATEWAYS {
        gateways.push(listener().await);
    }
    let addresses: Vec<SocketAddr> = gateways.iter().map(|(_, address)| *address).collect();
    let idp_der = std::fs::read(folder.join("idp.key")).unwrap();
    let most = NonZeroU32::MAX;
    let rates = Rates { failures: most, grants: most, introspections: most };
    let outbound = Outbound::new(&[]).unwrap();
    let context = || Context::new(clock(), entropy(), &outbound);
    let ring = |der: &[u8]| KeyRing::new(key(der), &[]).unwrap();
    let idp_issuer = idp.issuer();
    let store = Store::open(&idp_url).await.unwrap();
    fill_idp(&store, &ras, &addresses, people).await;
    let api = administration(admin, idp_issuer.clone(), store);
    serve(admin_listener, api);
    for listener in idp.nodes {
        let store = Store::open(&idp_url).await.unwrap();
        let settings = IdpSettings { rates, ..IdpSettings::default() };
        let passwords = Passwords::new(1);
        let ring = ring(&idp_der);
        let node = Idp::open(idp_issuer.clone(), store, ring, context(), settings, passwords);
        let node = node.await.unwrap();
        serve(listener, limited(node.router(), LIMITS, entropy(), &[]));
        tokio::spawn(async move { node.tell_authorization_servers().await });
    }
    for (at, (ras, url)) in ras.into_iter().zip([one_url, two_url]).enumerate() {
        let issuer = ras.issuer();
        let der = generate();
        let store = Store::open(&url).await.unwrap();
        fill_ras(&store, &idp_issuer, &addresses[at * GATEWAYS..(at + 1) * GATEWAYS]).await;
        for listener in ras.nodes {
            let store = Store::open(&url).await.unwrap();
            let settings = RasSettings { rates, ..RasSettings::default() };
            let node = Ras::open(issuer.clone(), store, ring(&der), context(), settings);
            let node = node.await.unwrap();
            serve(listener, limited(node.router(), LIMITS, entropy(), &[]));
            tokio::spawn(async move { node.follow_ended_tokens().await });
        }
        for (listener, address) in gateways.drain(..GATEWAYS) {
            guard(listener, address, &issuer, &context(), &outbound).await;
        }
    }
    let mut all = vec![idp.address, ras_addresses[0], ras_addresses[1], admin];
    all.extend(&addresses);
    println!("{}", all.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "));
    std::future::pending::<()>().await;
}

/// A gateway that hears its authorization server over HTTP, before an MCP server of its own.
async fn guard(
    listener: TcpListener,
    address: SocketAddr,
    issuer: &Issuer,
    context: &Context,
    outbound: &Outbound,
) {
    let (behind, mcp) = self::listener().await;
    serve(behind, Router::new().route("/mcp", axum_post(answer)));
    let resource = Resource::parse(&format!("http://{address}/mcp")).unwrap();
    let mut settings = RouteSettings::new(resource, issuer.clone(), &format!("http://{mcp}/mcp"));
    let tools = ["stream", "echo"].map(str::to_owned).to_vec();
    let rule = Rule { tools, ..Rule::default() };
    settings.rules = Rules::new(Scopes::default(), vec![rule]).unwrap();
    settings.limits.per_client = NonZeroU32::MAX;
    settings.limits.per_person = NonZeroU32::MAX;
    let credentials = ("guard", Secret::new(SECRET));
    let (outbound, issuer) = (outbound.clone(), issuer.clone());
    let without = WithoutFeed::Ask;
    let asked = Introspection::new(outbound.clone(), issuer, credentials, without, clock());
    settings.feed = Some(asked.feed().clone());
    let asked = Arc::new(asked);
    let stands: Stands = Arc::new(move |token| {
        let asked = Arc::clone(&asked);
        Box::pin(async move { asked.ask(token.expose()).await.map_err(|_| Unavailable) })
    });
    settings.stands = Some(stands);
    let (trail, entries) = Trail::new();
    std::thread::spawn(move || {
        while let Some(batch) = entries.take(Duration::from_millis(20)) {
            entries.written(&batch);
        }
    });
    let deps = GatewayDeps {
        clock: clock(),
        entropy: entropy(),
        keys: context.remote_keys.clone(),
        outbound,
        key: Arc::new(key(&generate())),
        session_key: Secret::new(SECRET),
        trail,
        keep: Arc::new(|_, _| Box::pin(async {})),
    };
    let gateway = Gateway::new(deps, vec![(settings, BTreeMap::new())]).unwrap();
    let watched = gateway.clone();
    tokio::spawn(async move { watched.watch(tokio_util::sync::CancellationToken::new()).await });
    let service = tower::make::Shared::new(gateway.service(Router::new(), []));
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
}

/// The MCP server: a stream that says something every 10 ms, or an answer.
async fn answer(body: String) -> Response<Body> {
    let streams = body.contains("\"stream\"");
    let kind = if streams { "text/event-stream" } else { "application/json" };
    let body = if streams {
        let event = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\
                     \"params\":{\"level\":\"info\",\"data\":\"x\"}}\n\n";
        let every = tokio::time::interval(Duration::from_millis(10));
        let events = futures::stream::unfold(every, |mut every| async {
            every.tick().await;
            Some(((), every))
        });
        Body::from_stream(events.map(move |()| Ok::<_, std::convert::Infallible>(event)))
    } else {
        let text = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"ok"}]}}"#;
        Body::from(text)
    };
    Response::builder().header("content-type", kind).body(body).unwrap()
}

async fn fill_idp(store: &Store, ras: &[Place], gateways: &[SocketAddr], people: usize) {
    put(store, &agent("agent")).await;
    for (at, ras) in ras.iter().enumerate() {
        let audience = ras.issuer();
        let server = ResourceAuthorizationServer {
            issuer: audience.clone(),
            name: String::new(),
            aliases: Vec::new(),
            aud_tenant: None,
            aud_sub: None,
            sub_id: None,
            id_jag_signing_alg: None,
            release: BTreeSet::new(),
            algorithm: Algorithm::default(),
            disabled: false,
        };
        put(store, &server).await;
        let mut resources = Vec::new();
        for gateway in &gateways[at * GATEWAYS..(at + 1) * GATEWAYS] {
            let resource = Resource::parse(&format!("http://{gateway}/mcp")).unwrap();
            let registered = RegisteredResource {
                resource: resource.clone(),
                authorization_server: audience.clone(),
                name: String::new(),
                scopes: ["read"].into_iter().collect(),
                disabled: false,
            };
            put(store, &registered).await;
            resources.push(resource);
        }
        let connection = Connection {
            id: format!("everyone-{at}"),
            idp_client_id: "agent".to_owned(),
            audience,
            ras_client_id: Some("agent-at-ras".to_owned()),
            resources,
            scopes: ["read"].into_iter().collect(),
            subjects: vec![Subject::Everyone],
            conditions: Conditions::default(),
            disabled: false,
        };
        put(store, &connection).await;
    }
    let now = clock().now();
    for person in 0..people {
        let user = User::new(&format!("person-{person}"), &format!("person-{person}"));
        put(store, &user).await;
        let session = Session {
            sid: format!("session-{person}"),
            user_id: user.id.clone(),
            authentication: authentication(now),
            expires_at: now.plus(3600),
        };
        let event = AuditEvent::granted(passavant_proto::event::RequestEvent::SignIn, now);
        let cookie = format!("cookie-{person}");
        let begun =
            store.begin_session(&cookie, &session, (&user, Proved::Password), None, event).await;
        assert!(begun.unwrap());
    }
}

async fn fill_ras(store: &Store, idp: &Issuer, gateways: &[SocketAddr]) {
    put(store, &agent("agent-at-ras")).await;
    let trusted = TrustedIssuer {
        issuer: idp.clone(),
        jwks_uri: None,
        algorithm: Algorithm::ES256,
        tenant: None,
        audience_tenant: None,
        accounts: AccountResolution { just_in_time: true, email_domains: Vec::new() },
        allow_reuse: false,
        client_documents: false,
        sign_in: None,
        disabled: false,
    };
    put(store, &trusted).await;
    let mut guard = agent("guard");
    for gateway in gateways {
        let resource = Resource::parse(&format!("http://{gateway}/mcp")).unwrap();
        guard.resources.push(resource.clone());
        let governed = GovernedResource {
            resource,
            name: String::new(),
            scopes: ["read"].into_iter().collect(),
            default_scopes: Scopes::default(),
            descriptions: BTreeMap::new(),
            access_token_lifetime: None,
            access_token_signing_alg: None,
            require_dpop: false,
            disabled: false,
        };
        put(store, &governed).await;
    }
    put(store, &guard).await;
}
