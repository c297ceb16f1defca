//! What every database must do, run against SQLite, and against PostgreSQL with the feature
//! `postgres`.
#![allow(clippy::disallowed_methods, reason = "the contract of the store itself")]

use passavant_proto::event::{Act, Detail, Event, RequestEvent};
use passavant_proto::{
    identifier::{Issuer, Resource},
    jose::jwk::Algorithm,
    oauth::authorize::AuthorizationRequest,
    oauth::client::{Client, ClientAuthentication, GovernedResource},
    oauth::pkce::CodeChallenge,
    oauth::scope::Scopes,
    oidc::authentication::Authentication,
    oidc::upstream::{
        OpenIdProvider, Preset, UpstreamAuthentication, UpstreamProtocol, UpstreamProvider,
    },
    policy::{Conditions, Connection, Subject},
    time::Timestamp,
    xaa::trust::{Account, AccountResolution, SubjectLink, TrustedIssuer},
};
use passavant_store::*;
use sqlx::Connection as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    sync::Arc,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn event(name: &'static str) -> AuditEvent {
    let event = match name {
        "mint" | "kept" => RequestEvent::TokenExchange.into(),
        "gone" => RequestEvent::JwtBearer.into(),
        "sign_out" => RequestEvent::SignOut.into(),
        name => Event::Admin(Act::Change, name),
    };
    AuditEvent::granted(event, NOW)
}

fn authentication() -> Authentication {
    Authentication {
        auth_time: NOW,
        acr: "urn:x".to_owned(),
        amr: vec!["pwd".to_owned()],
        issuer: None,
    }
}

fn erin() -> User {
    User { password_hash: Some("old".to_owned()), ..User::new("erin", "erin@acme") }
}

fn of_erin(sid: &str) -> Session {
    Session {
        sid: sid.to_owned(),
        user_id: "erin".to_owned(),
        authentication: authentication(),
        expires_at: NOW.plus(3600),
    }
}

async fn session(store: &Store, sid: &str) -> Session {
    let session = of_erin(sid);
    let cookie = format!("cookie-{sid}");
    assert!(
        store
            .begin_session(&cookie, &session, (&erin(), Proved::Password), None, event("sign_in"))
            .await
            .unwrap()
    );
    session
}

fn refresh(sid: &str, family: &str) -> RefreshToken {
    RefreshToken {
        family: family.to_owned(),
        sid: sid.to_owned(),
        user_id: "erin".to_owned(),
        client_id: "agent".to_owned(),
        scopes: Scopes::default(),
        authentication: authentication(),
        dpop_jkt: None,
        resource: None,
        client_method: None,
        idle_expires_at: NOW.plus(3600),
        expires_at: NOW.plus(7200),
    }
}

fn code(sid: &str, family: &str) -> AuthorizationCode {
    let request = AuthorizationRequest {
        client_id: "agent".to_owned(),
        redirect_uri: "https://a.example/cb".to_owned(),
        scopes: Scopes::default(),
        code_challenge: Some(CodeChallenge::of("x")),
        state: None,
        nonce: None,
        silent: false,
        fresh: false,
        max_age: None,
        login_hint: None,
        dpop_jkt: None,
        resource: None,
        subject: None,
        essential_acr: None,
        acr_values: Vec::new(),
    };
    AuthorizationCode {
        sid: sid.to_owned(),
        family: family.to_owned(),
        request,
        expires_at: NOW.plus(60),
    }
}

fn jti(text: &str) -> UsedJti {
    UsedJti { namespace: "test".to_owned(), jti: text.to_owned(), forget_after: NOW.plus(60) }
}

fn grant(id: &str, lineage: &str) -> Grant {
    Grant {
        jti: id.to_owned(),
        kind: TokenKind::AccessToken,
        user_id: "erin".to_owned(),
        client_id: "agent".to_owned(),
        party: "https://idp.example".to_owned(),
        lineage: lineage.to_owned(),
        expires_at: NOW.plus(300),
        opens: None,
    }
}

async fn rows(store: &Store) -> Vec<AuditRow> {
    store.audit(&AuditFilter { limit: 1000, ..AuditFilter::default() }).await.unwrap()
}

async fn whole_contract(store: Store, url: &str) {
    identity(&store).await;
    directory(&store).await;
    accounts(&store).await;
    cut_offs(&store).await;
    sessions(&store).await;
    numbers_of_cut_offs(&store).await;
    single_use(&store).await;
    conditions(&store).await;
    races(&store).await;
    expiry(&store).await;
    removal(&store).await;
    endings(&store).await;
    terms(&store).await;
    restored(&store).await;
    keys(&store).await;
    installations(&store).await;
    upstreams(&store).await;
    people(&store, url).await;
    ended_tokens(&store, url).await;
}

fn access_token(jti: &str, lineage: &str) -> Entry {
    let grant = Grant {
        jti: jti.to_owned(),
        kind: TokenKind::AccessToken,
        user_id: "erin".to_owned(),
        client_id: "agent".to_owned(),
        party: "https://idp.example".to_owned(),
        lineage: lineage.to_owned(),
        expires_at: NOW.plus(300),
        opens: None,
    };
    Entry { grant: Some(grant), ..Entry::new(Some(event("mint"))) }
}

/// Who has read up to a position misses nothing that is committed afterwards, whatever was under way then
/// and whenever it ends.
async fn ended_tokens(store: &Store, url: &str) {
    for jti in ["ended-1", "ended-2", "ended-3", "ended-4"] {
        let outcome = store.record(access_token(jti, "ended-family"), NOW).await.unwrap();
        assert_eq!(outcome, EntryOutcome::Recorded);
    }
    let read = async |after| store.ended_tokens(Some(after), None, NOW).await.unwrap();
    let names = |since: &EndedSince| since.ended.tokens.iter().cloned().collect::<BTreeSet<_>>();
    let start = store.ended_tokens(None, None, NOW).await.unwrap();
    let nothing = passavant_proto::oauth::ended_tokens::EndedTokens::default();
    assert_eq!(start.ended, nothing);
    assert_eq!(read(start.position).await.ended, nothing);
    if url.starts_with("postgres") {
        // A slow transaction that began first commits last.
        let mut slow = sqlx::AnyConnection::connect(url).await.unwrap();
        let mut slow = slow.begin().await.unwrap();
        let mut listener = store.ended_listener();
        listener.heard().await;
        let end = "UPDATE grants SET revoked_at = $1 WHERE jti = 'ended-1'";
        sqlx::query(end).bind(NOW.0).execute(&mut *slow).await.unwrap();
        assert!(store.revoke_grant("ended-2", event("gone"), NOW).await.unwrap());
        let meanwhile = read(start.position).await;
        assert_eq!(names(&meanwhile), BTreeSet::from(["ended-2".to_owned()]));
        // It holds the position, and yet a reader that says what it has seen is told nothing twice.
        let again = async |since: &EndedSince| {
            let seen = since.seen.as_deref();
            store.ended_tokens(Some(since.position), seen, NOW).await.unwrap()
        };
        assert_eq!(names(&read(meanwhile.position).await), names(&meanwhile));
        assert_eq!(again(&meanwhile).await.ended, nothing);
        // Of what is committed, whoever listens hears at once.
        let heard = async |listener: &mut EndedListener| {
            let heard = tokio::time::timeout(std::time::Duration::from_secs(1), listener.heard());
            heard.await.expect("nothing was heard");
        };
        heard(&mut listener).await;
        slow.commit().await.unwrap();
        heard(&mut listener).await;
        let then = again(&meanwhile).await;
        assert_eq!(names(&then), BTreeSet::from(["ended-1".to_owned()]), "{then:?}");
        assert!(names(&read(meanwhile.position).await).contains("ended-1"));
        assert_eq!(again(&then).await.ended, nothing);
    } else {
        assert!(store.revoke_grant("ended-1", event("gone"), NOW).await.unwrap());
        assert!(store.revoke_grant("ended-2", event("gone"), NOW).await.unwrap());
        let then = read(start.position).await;
        assert_eq!(names(&then), BTreeSet::from(["ended-1".to_owned(), "ended-2".to_owned()]));
        assert_eq!(read(then.position).await.ended, nothing);
    }
    // Once each, and what is rolled back is not told of.
    let before = store.ended_tokens(None, None, NOW).await.unwrap().position;
    assert!(!store.revoke_grant("ended-2", event("gone"), NOW).await.unwrap());
    assert_eq!(read(before).await.ended, nothing);
    // A position of the future, or of long ago, is one of which nothing is known.
    let ahead = passavant_proto::oauth::ended_tokens::Position { next: i64::MAX, ..before };
    assert!(read(ahead).await.ended.any);
    let at = async |now| store.ended_tokens(Some(before), None, now).await.unwrap().ended.any;
    assert_eq!((at(NOW.plus(901)).await, at(NOW.plus(899)).await), (true, false));
    // What may end any token.
    let key = "UPDATE signing_keys SET signs_from = signs_from";
    by_hand(url, key).await;
    assert!(read(before).await.ended.any);
    // Whoever registered itself has nobody asked about everything: not by being used first, not by its end.
    let before = store.ended_tokens(None, None, NOW).await.unwrap().position;
    let registered = Some(passavant_proto::oauth::client::SelfRegistered { at: NOW, used: false });
    let stranger = Client { id: "stranger".to_owned(), registered, ..Client::default() };
    store.put_stranger(&stranger, event("fixture")).await.unwrap();
    assert!(store.let_in("stranger", "erin", 5, event("let_in")).await.unwrap());
    store.forget_stranger("stranger", event("gone")).await.unwrap();
    assert_eq!(read(before).await.ended, nothing);
    let known = Client { id: "not a stranger".to_owned(), ..Client::default() };
    store.put(&known, Put::Create, event("fixture")).await.unwrap();
    let off = |client: &mut Client| client.disabled = true;
    store.update::<Client>("not a stranger", off, event("off")).await.unwrap();
    assert!(read(before).await.ended.any);
}

/// What a cut-off would end is what it has ended: at either kind of server, whatever it is about.
async fn numbers_of_cut_offs(store: &Store) {
    session(store, "cut").await;
    assert!(store.issue_refresh_token("cut", &refresh("cut", "cut-family")).await.unwrap());
    for (id, lineage) in [("cut-1", "cut-family"), ("cut-2", "cut-id-jag"), ("cut-3", "other")] {
        let entry = Entry { grant: Some(grant(id, lineage)), ..Entry::new(Some(event("mint"))) };
        store.record(entry, NOW).await.unwrap();
    }
    let id_jag = Grant { kind: TokenKind::IdJag, ..grant("cut-4", "cut") };
    let entry = Entry { grant: Some(id_jag), ..Entry::new(Some(event("mint"))) };
    store.record(entry, NOW).await.unwrap();
    let connection = |client: &str, installations| CutOff::Connection {
        audience: "https://idp.example".to_owned(),
        client: client.to_owned(),
        installations,
    };
    let (agent, issuer) = ("agent".to_owned(), "https://idp.example".to_owned());
    // Other parts of the contract end tokens at `NOW`.
    let act = AuditRow { at: NOW.plus(1), ..rows(store).await.remove(0) };
    for (of, id_jags, tokens) in [
        (CutOff::Person("erin".to_owned()), true, true),
        (CutOff::Client(agent.clone()), true, true),
        (CutOff::Installation { id: "i".to_owned(), client: agent }, true, true),
        (CutOff::Server(issuer.clone()), true, true),
        (CutOff::Issuer(issuer), true, true),
        (connection("agent", false), true, true),
        (connection("age", true), true, true),
        (connection("age", false), false, false),
        (connection("gent", true), false, false),
        (CutOff::Grant("cut-4".to_owned()), true, false),
        (CutOff::Grant("cut-id-jag".to_owned()), false, true),
    ] {
        let there = store.would_end(&of, TokenKind::IdJag, NOW).await.unwrap();
        assert_eq!(!there.servers.is_empty(), id_jags, "{of:?}: {there:?}");
        let found = store.id_jags_of(&of, NOW, "").await.unwrap();
        assert_eq!(found.iter().any(|grant| grant.jti == "cut-4"), id_jags, "{of:?}");
        let there = store.would_end(&of, TokenKind::AccessToken, NOW).await.unwrap();
        assert_eq!(there.access_tokens > 0, tokens, "{of:?}: {there:?}");
        for issues in [TokenKind::IdJag, TokenKind::AccessToken] {
            // A day later, when it is also looked for who was given up.
            for later in [0, 86_400] {
                let now = NOW.plus(later);
                let record = store.cut_off_record(&of, issues, &act, now).await.unwrap();
                assert_eq!(record.ended.access_tokens, 0, "{of:?}: nothing was cut off");
                let servers = &record.ended.servers;
                let none = servers.iter().all(|server| server.id_jags == 0 && !server.waits);
                assert!(none, "{of:?}: nothing was cut off: {servers:?}");
            }
        }
    }
    for (named, lineage, refresh_tokens) in
        [("cut-id-jag", "cut-id-jag", 0), ("cut-1", "cut-family", 1)]
    {
        let held = store.grant_or_of_id_jag(named).await.unwrap().unwrap();
        assert_eq!(held.lineage, lineage);
        let of = CutOff::Grant(held.lineage.clone());
        let there = store.would_end(&of, TokenKind::AccessToken, NOW).await.unwrap();
        assert_eq!((there.access_tokens, there.refresh_tokens), (1, refresh_tokens), "{named}");
        store.cut_off_grant(&held, event("cut")).await.unwrap();
        let act = rows(store).await.remove(0);
        assert_eq!(store.act(act.id).await.unwrap().as_ref(), Some(&act));
        let record = store.cut_off_record(&of, TokenKind::AccessToken, &act, NOW).await.unwrap();
        assert_eq!(record.ended, there, "{named}");
        let left = store.would_end(&of, TokenKind::AccessToken, NOW).await.unwrap();
        assert_eq!(left, Ends::default(), "{named}");
        assert!(store.live_grant(&held.jti).await.unwrap().is_none(), "{named}");
    }
    assert!(store.live_grant("cut-3").await.unwrap().is_some(), "another one");
    assert!(store.grant_or_of_id_jag("family:cut-family").await.unwrap().is_none(), "a mark");
    assert!(store.act(i64::MAX).await.unwrap().is_none());
}

fn upstream() -> UpstreamProvider {
    UpstreamProvider {
        name: "corp".to_owned(),
        display_name: "Corp".to_owned(),
        preset: Preset::Generic,
        protocol: UpstreamProtocol::OpenId(OpenIdProvider {
            issuer: Issuer::parse("https://corp.example").unwrap(),
            tenants: BTreeSet::new(),
            hosted_domains: BTreeSet::new(),
            client_id: "c".to_owned(),
            algorithm: Algorithm::RS256,
            scopes: BTreeSet::new(),
            asks_consent: false,
        }),
        authentication: UpstreamAuthentication::PrivateKeyJwt(None),
        domains: BTreeSet::new(),
        username_claim: None,
        groups_claim: None,
        groups: BTreeMap::new(),
        acr_values: BTreeMap::new(),
        just_in_time: true,
        external_id_is_subject: None,
        disabled: false,
    }
}

fn person_there(subject: &str) -> SubjectLink {
    let issuer = Issuer::parse("https://corp.example").unwrap().into();
    SubjectLink { issuer, tenant: None, subject: subject.to_owned() }
}

fn sign_in_there(subject: &str, id: &str) -> UpstreamSignIn {
    UpstreamSignIn {
        upstream: upstream(),
        link: person_there(subject),
        if_new: Some((format!("{subject}-name"), id.to_owned())),
        told: Told::default(),
        their_sid: Some(format!("there-{id}")),
        sealed: Some("sealed".to_owned()),
        sealed_for_link: None,
        once: None,
    }
}

async fn come(store: &Store, sid: &str, sign_in: &UpstreamSignIn) -> UpstreamOutcome {
    let mut session = of_erin(sid);
    let cookie = format!("cookie {sid}");
    let came = (cookie.as_str(), None);
    let event = event("sign_in");
    store.begin_upstream_session(came, &mut session, sign_in, event, NOW).await.unwrap()
}

/// People of an upstream: one user each however many sign-ins come at once, one check at a time, and
/// what ends there ends here.
#[allow(clippy::too_many_lines, reason = "one upstream, and what happens to it")]
async fn upstreams(store: &Store) {
    store.put(&upstream(), Put::Create, event("admin.create upstream")).await.unwrap();
    // Twenty first sign-ins of one person at once.
    let mut tasks = Vec::new();
    for i in 0..20 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let (sid, id) = (format!("up-first-{i}"), format!("new-{i}"));
            come(&store, &sid, &sign_in_there("ann", &id)).await
        }));
    }
    let mut ids = BTreeSet::new();
    let mut added = 0;
    for task in tasks {
        let UpstreamOutcome::Begun(user, new) = task.await.unwrap() else { panic!("not begun") };
        ids.insert(user.id);
        added += usize::from(new);
    }
    assert_eq!((ids.len(), added), (1, 1), "one person is added once");
    let ann = ids.into_iter().next().unwrap();
    let taken = UpstreamSignIn {
        if_new: Some(("ann-name".to_owned(), "other".to_owned())),
        ..sign_in_there("bob", "b")
    };
    assert_eq!(
        come(store, "up-taken", &taken).await,
        UpstreamOutcome::NameTaken("ann-name".to_owned())
    );
    let changed = UpstreamSignIn {
        upstream: UpstreamProvider { display_name: "other".to_owned(), ..upstream() },
        ..sign_in_there("ann", "x")
    };
    assert_eq!(come(store, "up-changed", &changed).await, UpstreamOutcome::Changed);
    // One check at a time, of all who ask.
    let due_by = async |sid: &str, before: Timestamp| {
        store.due_session(sid, (before, NOW.plus(1000))).await.unwrap()
    };
    assert!(due_by("up-first-0", NOW.plus(-1)).await.is_none(), "not due");
    // A time that is far ahead was written by a clock that was wrong.
    let behind = (NOW.plus(-2000), NOW.plus(-1000));
    assert!(store.due_session("up-first-0", behind).await.unwrap().is_some());
    let due = due_by("up-first-0", NOW).await.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let (store, due) = (store.clone(), due.clone());
        tasks.push(tokio::spawn(async move {
            store.claim_check("up-first-0", &due, NOW.plus(20)).await.unwrap()
        }));
    }
    let mut claimed = Vec::new();
    for task in tasks {
        claimed.extend(task.await.unwrap());
    }
    let [dead] = claimed.try_into().unwrap();
    // Who claimed it and died is followed by somebody else, and writes nothing afterwards.
    let due = due_by("up-first-0", NOW).await.unwrap();
    let mine = store.claim_check("up-first-0", &due, NOW.plus(40)).await.unwrap().unwrap();
    assert!(!store.keep_token("up-first-0", &dead, "older").await.unwrap());
    store.check_failed("up-first-0", &dead, NOW.plus(900)).await.unwrap();
    let late = store.keep_checked(("up-first-0", &dead), &upstream(), None, NOW.plus(30)).await;
    assert_eq!(late.unwrap(), Checked::Overtaken);
    store.check_failed("up-first-0", &mine, NOW.plus(50)).await.unwrap();
    let failed = due_by("up-first-0", NOW).await.unwrap();
    assert_eq!((failed.retry_at, failed.trying_until), (NOW.plus(50), Timestamp(0)));
    // The next refresh token is kept before anything else is known.
    let mine = store.claim_check("up-first-0", &failed, NOW.plus(75)).await.unwrap().unwrap();
    assert!(store.keep_token("up-first-0", &mine, "next").await.unwrap());
    // What was judged by a record that has changed since changes nothing.
    let (who, at) = (person_there("ann"), NOW.plus(60));
    let told = |name: &str, asked_at: Timestamp| Told {
        display_name: Some(name.to_owned()),
        asked_at,
        ..Told::default()
    };
    let first = told("Ann", at);
    let other = UpstreamProvider { display_name: "other".to_owned(), ..upstream() };
    let judged = store.keep_checked(("up-first-0", &mine), &other, Some((&who, &first)), at).await;
    assert_eq!(judged.unwrap(), Checked::Overtaken);
    let due = due_by("up-first-0", NOW).await.unwrap();
    assert_eq!((due.sealed.as_str(), due.trying_until), ("next", Timestamp(0)));
    let mine = store.claim_check("up-first-0", &due, NOW.plus(80)).await.unwrap().unwrap();
    let kept =
        store.keep_checked(("up-first-0", &mine), &upstream(), Some((&who, &first)), at).await;
    assert_eq!(kept.unwrap(), Checked::Kept);
    assert!(due_by("up-first-0", NOW.plus(59)).await.is_none());
    let due = due_by("up-first-0", NOW.plus(60)).await.unwrap();
    assert_eq!((due.sealed.as_str(), due.retry_at), ("next", Timestamp(0)));
    let display_name = async || {
        let user: User = store.by_id(&ann).await.unwrap().unwrap();
        user.display_name
    };
    assert_eq!(display_name().await.as_deref(), Some("Ann"));
    // An older answer that arrives later says nothing about now.
    let mine = store.claim_check("up-first-0", &due, NOW.plus(90)).await.unwrap().unwrap();
    let older = told("Ann before", NOW.plus(55));
    let told = Some((&who, &older));
    let kept = store.keep_checked(("up-first-0", &mine), &upstream(), told, NOW.plus(61)).await;
    assert_eq!((kept.unwrap(), display_name().await.as_deref()), (Checked::Kept, Some("Ann")));
    // Nor does what is said of somebody else.
    let due = due_by("up-first-0", NOW.plus(61)).await.unwrap();
    let mine = store.claim_check("up-first-0", &due, NOW.plus(95)).await.unwrap().unwrap();
    let (stranger, other) = (person_there("stranger"), Told { asked_at: NOW.plus(65), ..first });
    let told = Some((&stranger, &other));
    let kept = store.keep_checked(("up-first-0", &mine), &upstream(), told, NOW.plus(65)).await;
    assert_eq!((kept.unwrap(), display_name().await.as_deref()), (Checked::Kept, Some("Ann")));
    // Who lost the claim ends nothing.
    let ended =
        store.end_upstream_session(("up-first-0", &mine), None, event("upstream_check"), NOW).await;
    assert!(!ended.unwrap());
    assert!(due_by("up-first-0", NOW.plus(65)).await.is_some());
    // A session that ended there; told twice, it ends once.
    let live =
        async |sid: &str| store.session(&format!("cookie {sid}"), NOW).await.unwrap().is_some();
    let said = |name: &str| SaidOnce { jwt: jti(name), body: String::new() };
    let of = LoggedOut { upstream: "corp", session: Some("there-new-1"), link: None, until: None };
    assert_eq!(
        store.log_out(of, &said("logout 1"), event("sign_out"), NOW).await.unwrap(),
        AccessEnded::Now(1)
    );
    assert!(!live("up-first-1").await && live("up-first-2").await);
    assert!(matches!(
        come(store, "up-again", &sign_in_there("ann", "y")).await,
        UpstreamOutcome::Begun(_, false)
    ));
    assert_eq!(
        store.log_out(of, &said("logout 1"), event("sign_out"), NOW).await.unwrap(),
        AccessEnded::Before
    );
    let stranger = person_there("nobody");
    let of = LoggedOut { upstream: "corp", session: None, link: Some(&stranger), until: None };
    assert_eq!(
        store.log_out(of, &said("logout 2"), event("sign_out"), NOW).await.unwrap(),
        AccessEnded::Unknown
    );
    let link = person_there("ann");
    let of = LoggedOut { upstream: "corp", session: None, link: Some(&link), until: None };
    assert_eq!(
        store.log_out(of, &said("logout 3"), event("sign_out"), NOW).await.unwrap(),
        AccessEnded::Now(20)
    );
    assert!(!live("up-first-2").await && !live("up-again").await);
    // Rows of ended sessions go, with the refresh tokens that they hold.
    come(store, "up-last", &sign_in_there("ann", "z")).await;
    store.end_session("up-last", event("sign_out"), NOW).await.unwrap();
    store.forget_expired(wall_clock(), None).await.unwrap();
    assert!(due_by("up-last", NOW).await.is_none());
    // Links: one user each, and gone with user and upstream.
    let bob = person_there("bob");
    let linked = async |user: &str| {
        store.link_person(("corp", &bob), user, event("admin.change client"), NOW).await.unwrap()
    };
    assert!(!linked("no such user").await);
    assert!(linked(&ann).await && !linked(&ann).await);
    assert_eq!(store.person_links(Some(&ann), None).await.unwrap().len(), 2);
    assert!(store.unlink_person(&bob, event("admin.change client"), NOW).await.unwrap());
    assert!(!store.unlink_person(&bob, event("admin.change client"), NOW).await.unwrap());
    come(store, "up-more", &sign_in_there("ann", "w")).await;
    let off = |upstream: &mut UpstreamProvider| upstream.disabled = true;
    store.close_upstream("corp", off, event("admin.change client"), NOW).await.unwrap().unwrap();
    assert!(!live("up-more").await);
    assert_eq!(come(store, "up-off", &sign_in_there("ann", "v")).await, UpstreamOutcome::Changed);
    assert!(store.delete::<UpstreamProvider>("corp", event("admin.change client")).await.unwrap());
    assert!(store.person_links(None, Some("corp")).await.unwrap().is_empty());
    assert!(store.delete_user(&ann, event("admin.change client"), NOW).await.unwrap());
}

/// Changes the database behind the store's back, without regard for versions and generations: as an
/// earlier build does, or somebody with a database client.
async fn by_hand(url: &str, sql: &str) {
    let sql = || sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
    if let Some(file) = sqlite_path(url) {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
        let mut hand = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sql().execute(&mut hand).await.unwrap();
    } else {
        let mut hand = sqlx::PgConnection::connect(url).await.unwrap();
        sql().execute(&mut hand).await.unwrap();
    }
}

/// A change of one person affects nobody else, and no decision outlives the records it rests on.
#[allow(clippy::too_many_lines, reason = "one company, and what happens to it")]
async fn people(store: &Store, url: &str) {
    let person = |name: &str, groups: &[&str]| User {
        id: format!("p-{name}"),
        username: format!("{name}@people"),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..erin()
    };
    let group = |name: &str| Group { name: name.to_owned(), description: String::new() };
    for name in ["red", "blue", "caf\u{e9} \"x\""] {
        store.put(&group(name), Put::Create, event("a")).await.unwrap();
    }
    let before = store.generation().await.unwrap();
    for (name, groups) in
        [("ann", &["red", "blue"][..]), ("bob", &["blue"]), ("cyd", &["caf\u{e9} \"x\""])]
    {
        store.put(&person(name, groups), Put::Create, event("a")).await.unwrap();
    }
    let seen = async |id: &str| store.seen::<User>(id).await.unwrap().unwrap().1;
    let rests_on = async |rows: Vec<Seen>| {
        let operation = Entry { rests_on: rows, ..Entry::new(None) };
        store.record(operation, NOW).await.unwrap()
    };
    let (ann, bob) = (seen("p-ann").await, seen("p-bob").await);
    assert_eq!(rests_on(vec![ann.clone(), bob.clone()]).await, EntryOutcome::Recorded);
    let rename = |user: &mut User| user.display_name = Some("B".to_owned());
    store.update::<User>("p-bob", rename, event("a")).await.unwrap().unwrap();
    assert_eq!(rests_on(vec![ann.clone()]).await, EntryOutcome::Recorded, "nobody else's");
    assert_eq!(rests_on(vec![ann.clone(), bob.clone()]).await, EntryOutcome::Stale);
    assert_ne!(seen("p-bob").await, bob);
    // Many at once, some of which are stale: each is decided separately.
    let current = seen("p-bob").await;
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let row = [&ann, &bob, &current][i % 3].clone();
            let store = store.clone();
            tokio::spawn(async move {
                let operation = Entry { rests_on: vec![row], ..Entry::new(None) };
                (i % 3 == 1, store.record(operation, NOW).await.unwrap())
            })
        })
        .collect();
    for task in tasks {
        let (stale, outcome) = task.await.unwrap();
        assert_eq!(outcome == EntryOutcome::Stale, stale);
    }
    // Accounts, links, installations and self-registered clients are not part of the policy.
    let account = Account { id: "p-acc".to_owned(), email: None, disabled: false };
    let link = SubjectLink {
        issuer: Issuer::parse("https://people.example").unwrap().into(),
        tenant: None,
        subject: "s".to_owned(),
    };
    store.link_account(&link, &account, event("a")).await.unwrap().unwrap();
    let (_, rows) = store.linked_account(&link).await.unwrap().unwrap();
    assert_eq!(rests_on(rows.to_vec()).await, EntryOutcome::Recorded);
    let off = |account: &mut Account| account.disabled = true;
    store.update::<Account>("p-acc", off, event("a")).await.unwrap().unwrap();
    assert_eq!(rests_on(rows.to_vec()).await, EntryOutcome::Stale);
    let (_, rows) = store.linked_account(&link).await.unwrap().unwrap();
    assert_eq!(store.links("p-acc").await.unwrap(), std::slice::from_ref(&link));
    assert!(store.unlink(&link, event("a")).await.unwrap());
    assert_eq!(rests_on(rows.to_vec()).await, EntryOutcome::Stale);
    assert!(store.links("p-acc").await.unwrap().is_empty());
    let held = store.installations(None).await.unwrap().pop().unwrap();
    let (_, row) = store.installation(&held.id).await.unwrap().unwrap();
    store.installation_used(&held.id, NOW.plus(900)).await.unwrap();
    assert_eq!(rests_on(vec![row.clone()]).await, EntryOutcome::Recorded, "a use changes nothing");
    assert!(store.revoke_installation(&held.id, None, "x", event("a"), NOW).await.unwrap());
    assert_eq!(rests_on(vec![row]).await, EntryOutcome::Stale);
    let stranger = Client {
        id: "dyn-x".to_owned(),
        registered: Some(passavant_proto::oauth::client::SelfRegistered { at: NOW, used: false }),
        ..Client::default()
    };
    store.put_stranger(&stranger, event("a")).await.unwrap();
    let (_, row) = store.seen::<Client>("dyn-x").await.unwrap().unwrap();
    store.update::<Client>("dyn-x", |c| c.disabled = true, event("a")).await.unwrap().unwrap();
    assert_eq!(rests_on(vec![row]).await, EntryOutcome::Stale);
    store.forget_stranger("dyn-x", event("a")).await.unwrap();
    assert_eq!(store.generation().await.unwrap(), before, "no policy changed");
    // The version changes, whoever writes the row.
    let ann = seen("p-ann").await;
    by_hand(url, "UPDATE directory SET document = document || ' ' WHERE id = 'p-ann'").await;
    assert_eq!(rests_on(vec![ann]).await, EntryOutcome::Stale);
    assert_eq!(store.generation().await.unwrap(), before);
    let mut last = before;
    for sql in [
        "UPDATE directory SET document = document || ' ' WHERE kind = 'group' AND id = 'red'",
        "INSERT INTO directory (kind, id, name, document) VALUES ('client', 'dyn-y', 'y', '{}')",
        "DELETE FROM directory WHERE kind = 'client' AND id = 'dyn-y'",
        "INSERT INTO signing_keys (kid, algorithm, sealed, created_at) VALUES ('k', 'ES256', '', 1)",
        "DELETE FROM signing_keys WHERE kid = 'k'",
        "INSERT INTO directory (kind, id, name, document) VALUES ('of a later version', 'x', 'x', '{}')",
        "DELETE FROM directory WHERE kind = 'of a later version'",
        "INSERT INTO directory (kind, id, name, document) VALUES ('user', 'moves', 'moves', '{}'); \
         UPDATE directory SET kind = 'client' WHERE id = 'moves'",
        "UPDATE directory SET kind = 'user' WHERE id = 'moves'",
    ] {
        by_hand(url, sql).await;
        let now = store.generation().await.unwrap();
        assert_ne!(now, last, "{sql}");
        last = now;
    }
    // Deleting a group changes its members, and nobody else.
    let (ann, cyd) = (seen("p-ann").await, seen("p-cyd").await);
    by_hand(
        url,
        "UPDATE directory SET document = \
         '{\"id\":\"p-bob\",\"username\":\"bob@people\",\"crit\":[\"z\"],\"groups\":[\"blue\",\"red\"],\"n\":1e999}' \
         WHERE id = 'p-bob'",
    )
    .await;
    assert!(store.delete_group("blue", event("a")).await.unwrap());
    assert_eq!(seen("p-cyd").await, cyd);
    assert_ne!(seen("p-ann").await, ann);
    let (ann, _) = store.seen::<User>("p-ann").await.unwrap().unwrap();
    assert_eq!(ann.groups.into_iter().collect::<Vec<_>>(), ["red"]);
    // JSON that one database cannot parse, but this program can.
    by_hand(
        url,
        "UPDATE directory SET document = replace(document, '\"display_name\":null', '\"display_name\":\"a\\u0000b\"') \
         WHERE id = 'p-cyd'",
    )
    .await;
    let (cyd, _) = store.seen::<User>("p-cyd").await.unwrap().unwrap();
    assert_eq!(cyd.display_name.as_deref(), Some("a\0b"));
    assert!(store.delete_group("caf\u{e9} \"x\"", event("a")).await.unwrap());
    let (cyd, _) = store.seen::<User>("p-cyd").await.unwrap().unwrap();
    assert!(cyd.groups.is_empty());
    by_hand(
        url,
        "UPDATE directory SET document = replace(document, '\"crit\":[\"z\"],', '') WHERE id = 'p-bob'",
    )
    .await;
    let (bob, _) = store.seen::<User>("p-bob").await.unwrap().unwrap();
    assert_eq!(bob.groups.into_iter().collect::<Vec<_>>(), ["red"], "also who could not be read");
    // A member whose record cannot be parsed at all must not stay in the group if it is created
    // again.
    by_hand(url, "UPDATE directory SET document = '{\"id\":' WHERE id = 'p-bob'").await;
    let refused = store.delete_group("red", event("a")).await.unwrap_err().to_string();
    assert!(refused.contains("`p-bob`"), "{refused}");
    assert!(store.by_id::<Group>("red").await.unwrap().is_some(), "nothing was done");
    assert!(store.delete_user("p-bob", event("a"), NOW).await.unwrap());
    assert!(store.delete_group("red", event("a")).await.unwrap());
}

/// Deleting a record deletes what refers to it; a new record of the same name inherits nothing.
async fn removal(store: &Store) {
    let client = Client {
        id: "leaver".to_owned(),
        name: "Leaver".to_owned(),
        authentication: ClientAuthentication::Public,
        ..Client::default()
    };
    let connection = Connection {
        id: "of-leaver".to_owned(),
        idp_client_id: "leaver".to_owned(),
        audience: Issuer::parse("https://as.example").unwrap(),
        ras_client_id: Some("x".to_owned()),
        resources: Vec::new(),
        scopes: Scopes::default(),
        subjects: Vec::new(),
        conditions: Conditions::default(),
        disabled: false,
    };
    store.put(&client, Put::Create, event("a")).await.unwrap();
    store.put(&connection, Put::Create, event("a")).await.unwrap();
    session(store, "s-leaver").await;
    let token = RefreshToken { client_id: "leaver".to_owned(), ..refresh("s-leaver", "f-leaver") };
    assert!(store.issue_refresh_token("r-leaver", &token).await.unwrap());
    let operation = Entry {
        grant: Some(Grant { client_id: "leaver".to_owned(), ..grant("g-leaver", "f-leaver") }),
        ..Entry::new(None)
    };
    store.record(operation, NOW).await.unwrap();
    assert!(store.delete::<Client>("leaver", event("admin.delete")).await.unwrap());
    assert!(store.by_id::<Connection>("of-leaver").await.unwrap().is_none());
    let state = store.refresh_token("r-leaver", NOW).await.unwrap();
    assert!(matches!(state, RefreshTokenState::Invalid));
    assert!(store.live_grant("g-leaver").await.unwrap().is_none());
    let row =
        rows(store).await.into_iter().find(|row| row.event == "admin.change admin.delete").unwrap();
    assert_eq!(row.details["with_it"], "1", "the row says that something went with it");
}

/// Sessions and tokens that rest on a link, an issuer or an MCP server end with it; others stay.
async fn endings(store: &Store) {
    let issuer = Issuer::parse("https://company.example").unwrap();
    let trusted = TrustedIssuer {
        issuer: issuer.clone(),
        jwks_uri: None,
        algorithm: Algorithm::ES256,
        tenant: None,
        audience_tenant: None,
        accounts: AccountResolution::default(),
        allow_reuse: false,
        client_documents: false,
        sign_in: None,
        disabled: false,
    };
    let mcp = Resource::parse("https://ending.example/mcp").unwrap();
    let governed = GovernedResource {
        resource: mcp.clone(),
        name: String::new(),
        scopes: Scopes::default(),
        default_scopes: Scopes::default(),
        descriptions: BTreeMap::new(),
        access_token_lifetime: None,
        access_token_signing_alg: None,
        require_dpop: false,
        disabled: false,
    };
    store.put(&trusted, Put::Create, event("a")).await.unwrap();
    store.put(&governed, Put::Create, event("a")).await.unwrap();
    let by_company = Authentication { issuer: Some((&issuer).into()), ..authentication() };
    let account = Account { id: "e-acc".to_owned(), email: None, disabled: false };
    let link =
        SubjectLink { issuer: (&issuer).into(), tenant: None, subject: "e-subject".to_owned() };
    store.link_account(&link, &account, event("a")).await.unwrap().unwrap();
    let begin = async |sid: &str, user: &str, authentication: &Authentication| {
        let session = Session {
            sid: sid.to_owned(),
            user_id: user.to_owned(),
            authentication: authentication.clone(),
            expires_at: NOW.plus(3600),
        };
        let user = User { id: user.to_owned(), username: user.to_owned(), ..erin() };
        store.put(&user, Put::Create, event("fixture")).await.unwrap();
        let cookie = format!("cookie-{sid}");
        assert!(
            store
                .begin_session(&cookie, &session, (&user, Proved::Password), None, event("a"))
                .await
                .unwrap()
        );
    };
    let token = async |name: &str, sid: &str, user: &str, resource: Option<&Resource>| {
        let token = RefreshToken {
            user_id: user.to_owned(),
            resource: resource.cloned(),
            ..refresh(sid, name)
        };
        assert!(store.issue_refresh_token(name, &token).await.unwrap());
    };
    let lives = async |name: &str| {
        let state = store.refresh_token(name, NOW).await.unwrap();
        !matches!(state, RefreshTokenState::Invalid)
    };
    begin("e-company", "e-one", &by_company).await;
    begin("e-other", "e-two", &authentication()).await;
    begin("e-linked", "e-acc", &authentication()).await;
    let near = Resource::parse("https://ending.example/mcp2").unwrap();
    token("e-1", "e-company", "e-one", Some(&near)).await;
    token("e-2", "e-other", "e-two", Some(&mcp)).await;
    token("e-3", "e-other", "e-two", Some(&near)).await;
    token("e-4", "e-linked", "e-acc", Some(&near)).await;
    token("e-5", "e-other", "e-two", None).await;
    for (name, resource) in [("e-c1", None), ("e-c2", Some(&mcp)), ("e-c3", Some(&near))] {
        let mut held = code("e-other", name);
        held.request.resource = resource.cloned();
        store.keep_authorization_code(name, &held, None, event("a"), NOW).await.unwrap();
    }
    let codes = async || {
        let mut live = Vec::new();
        for name in ["e-c1", "e-c2", "e-c3"] {
            let state = store.authorization_code(name, NOW).await.unwrap();
            live.extend(matches!(state, CodeState::Live(..)).then_some(name));
        }
        live
    };
    assert_eq!(codes().await.len(), 3);
    assert!(store.delete::<GovernedResource>(mcp.normalized(), event("a")).await.unwrap());
    assert!(!lives("e-2").await && lives("e-1").await && lives("e-3").await);
    assert!(lives("e-5").await, "a token for no MCP server is of none");
    assert_eq!(codes().await, ["e-c1", "e-c3"]);
    assert!(store.unlink(&link, event("a")).await.unwrap());
    assert!(!lives("e-4").await && lives("e-1").await && lives("e-3").await);
    assert!(store.delete::<TrustedIssuer>(issuer.as_str(), event("a")).await.unwrap());
    assert!(!lives("e-1").await && lives("e-3").await);
    let cut = store.cut_off_account("e-acc", |account| account.disabled = true, event("a")).await;
    assert!(cut.unwrap().unwrap().disabled);
}

/// An act that was checked against an outdated policy is not carried out.
async fn terms(store: &Store) {
    let group = Group { name: "of-terms".to_owned(), description: String::new() };
    let policy = store.generation().await.unwrap();
    let on = |policy| {
        let mut event = event("a");
        event.terms.get_or_insert_default().policy = Some(policy);
        event
    };
    assert!(store.put(&group, Put::Create, on(policy)).await.unwrap());
    let late = store.delete_group("of-terms", on(policy)).await;
    assert!(matches!(late, Err(StoreError::Stale)), "{late:?}");
    let policy = store.generation().await.unwrap();
    assert!(store.delete_group("of-terms", on(policy)).await.unwrap());
}

/// A database belongs to one authorization server.
async fn identity(store: &Store) {
    for _ in 0..2 {
        store.claim("idp", "https://idp.example").await.unwrap();
    }
    for (role, issuer) in [("ras", "https://idp.example"), ("idp", "https://other.example")] {
        let error = store.claim(role, issuer).await.unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{role} {issuer}: {error}");
    }
}

/// A restored backup is not mistaken for the state before, and nothing in it is live.
async fn restored(store: &Store) {
    session(store, "s-restored").await;
    let code = code("s-restored", "f-restored");
    store.keep_authorization_code("c-restored", &code, None, event("a"), NOW).await.unwrap();
    let token = refresh("s-restored", "f-restored2");
    assert!(store.issue_refresh_token("r-restored", &token).await.unwrap());
    let minted = Entry { grant: Some(grant("g-restored", "x")), ..Entry::new(None) };
    store.record(minted, NOW).await.unwrap();
    let before = store.generation().await.unwrap();
    store.after_restore(event("admin.restored"), NOW).await.unwrap();
    assert!(store.generation().await.unwrap() != before);
    assert!(!store.session_not_ended("s-restored").await.unwrap());
    let state = store.authorization_code("c-restored", NOW).await.unwrap();
    assert!(!matches!(state, CodeState::Live(..)));
    let state = store.refresh_token("r-restored", NOW).await.unwrap();
    assert!(matches!(state, RefreshTokenState::Invalid));
    assert!(store.live_grant("g-restored").await.unwrap().is_none());
    // A decision on records from before the restore writes nothing, even if the counter is the
    // same.
    let stale = Entry { generation: Some(before), ..Entry::new(Some(event("mint"))) };
    assert_eq!(store.record(stale, NOW).await.unwrap(), EntryOutcome::Stale);
}

async fn directory(store: &Store) {
    let before = store.generation().await.unwrap();
    let group = Group { name: "engineering".to_owned(), description: String::new() };
    assert!(store.put(&group, Put::Create, event("a")).await.unwrap());
    let after = store.generation().await.unwrap();
    assert!(after != before, "a change raises the generation");
    let taken = store.put(&group, Put::Create, event("b")).await;
    assert!(matches!(taken, Err(StoreError::NameTaken { .. })));
    let absent = Group { name: "absent".to_owned(), description: String::new() };
    assert!(!store.put(&absent, Put::Replace, event("c")).await.unwrap());
    let events: Vec<String> = rows(store).await.into_iter().map(|row| row.event).collect();
    assert_eq!(events, ["admin.change a"], "what was not done is not on record");
    let user = |id: &str, name: &str| User {
        groups: BTreeSet::from(["engineering".to_owned()]),
        ..User::new(id, name)
    };
    assert!(store.put(&user("1", "erin"), Put::Create, event("d")).await.unwrap());
    assert!(matches!(
        store.put(&user("2", "erin"), Put::Create, event("e")).await,
        Err(StoreError::NameTaken { .. })
    ));
    assert_eq!(store.by_name::<User>("erin").await.unwrap().unwrap().id, "1");
    assert!(store.by_id::<Group>("1").await.unwrap().is_none(), "kinds are apart");
    let of_group = |subjects| Connection {
        id: "c".to_owned(),
        idp_client_id: "agent".to_owned(),
        audience: Issuer::parse("https://ras.example").unwrap(),
        ras_client_id: None,
        resources: Vec::new(),
        scopes: Scopes::default(),
        subjects,
        conditions: Conditions::default(),
        disabled: false,
    };
    let engineering = Subject::Group("engineering".to_owned());
    let connection = of_group(vec![engineering]);
    assert!(store.put(&connection, Put::Create, event("c")).await.unwrap());
    assert!(store.delete_group("engineering", event("f")).await.unwrap());
    // The connection is now for nobody; it is neither for everybody nor deleted, and the record
    // says who removed the group.
    let left = store.by_id::<Connection>("c").await.unwrap();
    assert_eq!(left, Some(of_group(Vec::new())));
    assert_eq!(rows(store).await[0].details["connections"], "c");
    assert!(store.by_id::<User>("1").await.unwrap().unwrap().groups.is_empty());
    assert!(!store.delete_group("engineering", event("g")).await.unwrap());
    assert!(store.delete::<User>("1", event("h")).await.unwrap());
    assert!(store.all::<User>().await.unwrap().is_empty());
}

async fn accounts(store: &Store) {
    let link = |subject: &str| SubjectLink {
        issuer: Issuer::parse("https://idp.example").unwrap().into(),
        tenant: None,
        subject: subject.to_owned(),
    };
    let account = |id: &str| Account { id: id.to_owned(), email: None, disabled: false };
    assert!(store.linked_account(&link("erin")).await.unwrap().is_none());
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let (store, link, account) = (store.clone(), link("erin"), account(&format!("a{i}")));
            tokio::spawn(async move {
                store.link_account(&link, &account, event("link")).await.unwrap()
            })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for task in tasks {
        ids.insert(task.await.unwrap().unwrap().id);
    }
    assert_eq!(ids.len(), 1, "of several at once one account comes out");
    assert_eq!(store.all::<Account>().await.unwrap().len(), 1);
    let other = store.link_account(&link("max"), &account("m"), event("link")).await.unwrap();
    assert_eq!(other.unwrap().id, "m");
}

/// A sign-in concurrent with disabling the person, and concurrent changes.
async fn cut_offs(store: &Store) {
    let before = User { id: "cut".to_owned(), username: "cut".to_owned(), ..erin() };
    store.put(&before, Put::Create, event("fixture")).await.unwrap();
    let session = Session {
        sid: "cut".to_owned(),
        user_id: "cut".to_owned(),
        authentication: authentication(),
        expires_at: NOW.plus(3600),
    };
    let set = |user: &mut User| user.password_hash = Some("new".to_owned());
    store.cut_off_user("cut", set, true, event("set_password"), NOW).await.unwrap().unwrap();
    let begun = store
        .begin_session("c", &session, (&before, Proved::Password), None, event("sign_in"))
        .await
        .unwrap();
    assert!(!begun, "signed in with the password of before");
    let off = |user: &mut User| user.disabled_here = true;
    store.cut_off_user("cut", off, false, event("disable"), NOW).await.unwrap().unwrap();
    let groups = |user: &mut User| user.groups = BTreeSet::from(["g".to_owned()]);
    let changed = store.update::<User>("cut", groups, event("groups")).await.unwrap().unwrap();
    assert!(changed.disabled_here, "a change of something else switched the person on again");
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let store = store.clone();
            let add = move |user: &mut User| {
                user.groups.insert(format!("g{i}"));
            };
            tokio::spawn(
                async move { store.update::<User>("cut", add, event("add")).await.unwrap() },
            )
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        store.by_id::<User>("cut").await.unwrap().unwrap().groups.len(),
        21,
        "a lost update"
    );
    let gone = store.delete_user("cut", event("delete"), NOW).await.unwrap();
    assert!(gone && store.by_id::<User>("cut").await.unwrap().is_none());
    assert!(!store.delete_user("cut", event("delete"), NOW).await.unwrap(), "once");
}

async fn installations(store: &Store) {
    store.put(&erin(), Put::Replace, event("fixture")).await.unwrap();
    session(store, "enrols").await;
    let one = |id: &str| Installation {
        id: id.to_owned(),
        user_id: "erin".to_owned(),
        device: "laptop".to_owned(),
        public_jwk: serde_json::json!({"kty": "EC"}),
        algorithm: Algorithm::ES256,
        enrolled_at: NOW,
        used_at: NOW,
    };
    let stranger = Installation { user_id: "nobody".to_owned(), ..one("i-x") };
    assert!(!store.enrol(&stranger, "enrols", event("enrol")).await.unwrap(), "of nobody");
    let tasks: Vec<_> = (0..MOST_INSTALLATIONS + 10)
        .map(|n| {
            let (store, installation) = (store.clone(), one(&format!("i-{n}")));
            tokio::spawn(async move {
                store.enrol(&installation, "enrols", event("enrol")).await.unwrap()
            })
        })
        .collect();
    let mut enrolled = 0;
    for task in tasks {
        enrolled += i64::from(task.await.unwrap());
    }
    assert_eq!(enrolled, MOST_INSTALLATIONS, "two at once were both the last one");
    let held = store.installations(Some("erin")).await.unwrap();
    assert_eq!(i64::try_from(held.len()).unwrap(), MOST_INSTALLATIONS);
    assert!(store.installations(Some("max")).await.unwrap().is_empty());
    let id = held[0].id.clone();
    assert_eq!(store.installation(&id).await.unwrap().unwrap().0, held[0]);
    store.installation_used(&id, NOW.plus(90)).await.unwrap();
    store.installation_used(&id, NOW.plus(30)).await.unwrap();
    assert_eq!(store.installation(&id).await.unwrap().unwrap().0.used_at, NOW.plus(90));
    assert_eq!(store.installations(None).await.unwrap()[0].id, id, "used last, first");
    // A person cannot revoke another person's installation. Their own is revoked once, together
    // with that client's refresh tokens.
    session(store, "of-installation").await;
    let token =
        RefreshToken { client_id: "client-url".to_owned(), ..refresh("of-installation", "fi") };
    assert!(store.issue_refresh_token("ri", &token).await.unwrap());
    let revoke = async |user| {
        store.revoke_installation(&id, user, "client-url", event("revoke"), NOW).await.unwrap()
    };
    assert!(!revoke(Some("max")).await);
    assert!(revoke(Some("erin")).await && !revoke(Some("erin")).await && !revoke(None).await);
    assert!(store.installation(&id).await.unwrap().is_none());
    let state = store.refresh_token("ri", NOW).await.unwrap();
    assert!(matches!(state, RefreshTokenState::Invalid), "its refresh token goes with it");
    // A change of something else keeps the installations; a new password ends them.
    let change = |user: &mut User| user.password_hash = Some("new".to_owned());
    store.cut_off_user("erin", change, false, event("disable"), NOW).await.unwrap().unwrap();
    assert!(!store.installations(Some("erin")).await.unwrap().is_empty());
    store.cut_off_user("erin", change, true, event("password"), NOW).await.unwrap().unwrap();
    assert!(store.installations(Some("erin")).await.unwrap().is_empty());
    // There is room again, but not for the earlier sign-in.
    assert!(!store.enrol(&one("i-new"), "enrols", event("enrol")).await.unwrap());
    let renamed = store.by_id::<User>("erin").await.unwrap().unwrap();
    let again = of_erin("again");
    assert!(
        store
            .begin_session(
                "cookie-again",
                &again,
                (&renamed, Proved::Password),
                None,
                event("sign_in")
            )
            .await
            .unwrap()
    );
    assert!(store.enrol(&one("i-new"), "again", event("enrol")).await.unwrap());
    let off = |user: &mut User| user.disabled_here = true;
    store.cut_off_user("erin", off, false, event("disable"), NOW).await.unwrap().unwrap();
    assert!(
        !store.enrol(&one("i-off"), "again", event("enrol")).await.unwrap(),
        "of a person switched off"
    );
}

async fn sessions(store: &Store) {
    store.put(&erin(), Put::Create, event("fixture")).await.unwrap();
    session(store, "s1").await;
    assert!(store.session("cookie-s1", NOW).await.unwrap().is_some());
    assert!(store.session("cookie-s1", NOW.plus(3600)).await.unwrap().is_none(), "expired");
    assert!(store.session_not_ended("s1").await.unwrap());
    assert!(store.issue_refresh_token("r1", &refresh("s1", "f1")).await.unwrap());
    assert!(store.end_session("s1", event("sign_out"), NOW).await.unwrap());
    assert!(!store.end_session("s1", event("sign_out"), NOW).await.unwrap());
    assert!(store.session("cookie-s1", NOW).await.unwrap().is_none());
    assert!(matches!(store.refresh_token("r1", NOW).await.unwrap(), RefreshTokenState::Invalid));
    assert!(
        !store.issue_refresh_token("r2", &refresh("s1", "f2")).await.unwrap(),
        "its session has ended"
    );
    let pushed = PushedRequest {
        client_id: "agent".to_owned(),
        request: code("", "").request,
        expires_at: NOW.plus(60),
    };
    store.keep_pushed_request("p1", &pushed, event("push")).await.unwrap();
    assert!(store.open_pushed_request("p1", "other", NOW).await.unwrap().is_none());
    assert!(store.open_pushed_request("p1", "agent", NOW.plus(61)).await.unwrap().is_none());
    assert!(store.open_pushed_request("p1", "agent", NOW).await.unwrap().is_some());
    assert!(
        store.open_pushed_request("p1", "agent", NOW.plus(599)).await.unwrap().is_some(),
        "open while signing in"
    );
    session(store, "s2").await;
    let keep = |hash: &'static str| {
        let store = store.clone();
        async move {
            let code = code("s2", "f-push");
            store
                .keep_authorization_code(hash, &code, Some("p1"), event("authorize"), NOW)
                .await
                .unwrap()
        }
    };
    assert!(keep("pc1").await);
    assert!(!keep("pc2").await, "a pushed request serves once");
    assert!(matches!(store.authorization_code("pc2", NOW).await.unwrap(), CodeState::Invalid));
}

/// Uses up a code, as a mint does.
async fn redeem(store: &Store, hash: &str) -> EntryOutcome {
    let operation = Entry { code: Some(hash.to_owned()), ..Entry::new(None) };
    store.record(operation, NOW).await.unwrap()
}

/// Rotates a refresh token, as a mint does.
async fn rotate(store: &Store, from: &str, to: &str, successor: &RefreshToken) -> EntryOutcome {
    let operation = Entry {
        replaces: Some(Replaces {
            hash: from.to_owned(),
            salt: format!("salt of {from}"),
            by: "secret s".to_owned(),
        }),
        issues: Some((to.to_owned(), Box::new(successor.clone()))),
        ..Entry::new(None)
    };
    store.record(operation, NOW).await.unwrap()
}

async fn single_use(store: &Store) {
    session(store, "s3").await;
    let kept = code("s3", "f3");
    store.keep_authorization_code("c1", &kept, None, event("authorize"), NOW).await.unwrap();
    for _ in 0..2 {
        let CodeState::Live(read, of) = store.authorization_code("c1", NOW).await.unwrap() else {
            panic!("looking uses nothing up")
        };
        assert_eq!((*read, of.sid.as_str()), (kept.clone(), "s3"));
    }
    let first = Entry {
        code: Some("c1".to_owned()),
        issues: Some(("r3".to_owned(), Box::new(refresh("s3", "f3")))),
        grant: Some(grant("g3", "f3")),
        ..Entry::new(None)
    };
    assert_eq!(store.record(first, NOW).await.unwrap(), EntryOutcome::Recorded);
    assert!(store.live_grant("g3").await.unwrap().is_some());
    assert_eq!(redeem(store, "c1").await, EntryOutcome::RefreshTokenNotLive);
    let CodeState::Used(used, _) = store.authorization_code("c1", NOW).await.unwrap() else {
        panic!("it was used")
    };
    assert_eq!(used.family, "f3", "who judges knows what the first use bought");
    assert!(
        store.live_grant("g3").await.unwrap().is_some(),
        "whether a second use is an alarm is not the store's to say"
    );
    store.revoke_family("f3", event("code.reuse"), NOW).await.unwrap();
    assert!(matches!(store.refresh_token("r3", NOW).await.unwrap(), RefreshTokenState::Invalid));
    assert!(store.live_grant("g3").await.unwrap().is_none());
    assert!(
        !store.issue_refresh_token("r4", &refresh("s3", "f3")).await.unwrap(),
        "also what comes late"
    );
    session(store, "s3b").await;
    store
        .keep_authorization_code("c2", &code("s3b", "f4"), None, event("authorize"), NOW)
        .await
        .unwrap();
    assert!(matches!(
        store.authorization_code("c2", NOW.plus(60)).await.unwrap(),
        CodeState::Invalid
    ));
    session(store, "s4").await;
    assert!(store.issue_refresh_token("r5", &refresh("s4", "f5")).await.unwrap());
    let successor = refresh("s4", "f5");
    assert_eq!(rotate(store, "r5", "r6", &successor).await, EntryOutcome::Recorded);
    assert!(matches!(
        store.refresh_token("r5", NOW).await.unwrap(),
        RefreshTokenState::Replaced(_, Some(rotation)) if rotation.by == "secret s" && rotation.salt == "salt of r5"
    ));
    assert!(matches!(store.refresh_token("r6", NOW).await.unwrap(), RefreshTokenState::Live(..)));
    for from in ["r5", "nothing"] {
        let outcome = rotate(store, from, "r7", &successor).await;
        assert_eq!(outcome, EntryOutcome::RefreshTokenNotLive, "{from}");
        let state = store.refresh_token("r7", NOW).await.unwrap();
        assert!(matches!(state, RefreshTokenState::Invalid), "nothing is issued");
    }
    // A token that is not rotated: it can be used repeatedly while it is live, and each use extends
    // its idle time.
    let keep = async |hash: &str, until: i64, at: i64| {
        let kept = RefreshToken { idle_expires_at: NOW.plus(until), ..refresh("s4", "f5") };
        let keeps = Some((hash.to_owned(), Box::new(kept)));
        let operation = Entry { keeps, ..Entry::new(None) };
        store.record(operation, NOW.plus(at)).await.unwrap()
    };
    for at in [0, 50, 140] {
        assert_eq!(keep("r6", at + 100, at).await, EntryOutcome::Recorded, "{at}");
    }
    assert_eq!(keep("r6", 1000, 240).await, EntryOutcome::RefreshTokenNotLive, "idle for too long");
    let late = store.refresh_token("r6", NOW.plus(240)).await.unwrap();
    assert!(matches!(late, RefreshTokenState::Invalid));
    for hash in ["r5", "r3", "nothing"] {
        assert_eq!(keep(hash, 1000, 0).await, EntryOutcome::RefreshTokenNotLive, "{hash}");
    }
    assert_eq!(store.remember_jti(jti("j1"), NOW).await.unwrap(), EntryOutcome::Recorded);
    assert_eq!(store.remember_jti(jti("j1"), NOW).await.unwrap(), EntryOutcome::Replay);
    let elsewhere = UsedJti { namespace: "other".to_owned(), ..jti("j1") };
    assert_eq!(store.remember_jti(elsewhere, NOW).await.unwrap(), EntryOutcome::Recorded);
}

async fn conditions(store: &Store) {
    session(store, "s5").await;
    assert!(store.issue_refresh_token("r10", &refresh("s5", "f10")).await.unwrap());
    let generation = store.generation().await.unwrap();
    let operation = |id: &str| Entry {
        generation: Some(generation),
        session: Some("s5".to_owned()),
        refresh_token: Some("r10".to_owned()),
        jti: Some(jti(id)),
        grant: Some(grant(id, "s5")),
        ..Entry::new(Some(event("mint")))
    };
    let before = rows(store).await.len();
    assert_eq!(store.record(operation("m1"), NOW).await.unwrap(), EntryOutcome::Recorded);
    assert_eq!(store.record(operation("m1"), NOW).await.unwrap(), EntryOutcome::Replay);
    let no_session = Entry { session: Some("none".to_owned()), ..operation("m2") };
    assert_eq!(store.record(no_session, NOW).await.unwrap(), EntryOutcome::SessionEnded);
    let no_token = Entry { refresh_token: Some("none".to_owned()), ..operation("m3") };
    assert_eq!(store.record(no_token, NOW).await.unwrap(), EntryOutcome::RefreshTokenNotLive);
    assert_eq!(
        store.record(operation("m4"), NOW.plus(4000)).await.unwrap(),
        EntryOutcome::RefreshTokenNotLive
    );
    let all = rows(store).await;
    let recorded: Vec<_> =
        all.iter().take(all.len() - before).map(|row| row.outcome.as_str()).collect();
    assert_eq!(recorded, ["refused", "refused", "refused", "refused", "granted"]);
    for id in ["m2", "m3", "m4"] {
        assert!(store.live_grant(id).await.unwrap().is_none());
        assert_eq!(
            store.remember_jti(jti(id), NOW).await.unwrap(),
            EntryOutcome::Recorded,
            "{id} was not used up"
        );
    }
    let group = Group { name: "new".to_owned(), description: String::new() };
    store.put(&group, Put::Create, event("admin")).await.unwrap();
    let before = rows(store).await.len();
    assert_eq!(store.record(operation("m5"), NOW).await.unwrap(), EntryOutcome::Stale);
    assert_eq!(rows(store).await.len(), before, "a stale decision leaves nothing");
    assert!(store.revoke_grant("m1", event("revoke"), NOW).await.unwrap());
    assert!(store.live_grant("m1").await.unwrap().is_none());
}

async fn races(store: &Store) {
    let store = Arc::new(store.clone());
    session(&store, "s6").await;
    store
        .keep_authorization_code("c-race", &code("s6", "f-race"), None, event("authorize"), NOW)
        .await
        .unwrap();
    session(&store, "s7").await;
    assert!(store.issue_refresh_token("r-race", &refresh("s7", "f-race2")).await.unwrap());
    let mut tasks = Vec::new();
    for i in 0..50 {
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move {
            let jti = store.remember_jti(jti("race"), NOW).await.unwrap() == EntryOutcome::Recorded;
            let code = redeem(&store, "c-race").await == EntryOutcome::Recorded;
            let token = refresh("s7", "f-race2");
            let rotated = rotate(&store, "r-race", &format!("n{i}"), &token).await;
            (jti, code, rotated == EntryOutcome::Recorded)
        }));
    }
    let mut won = [0; 3];
    for task in tasks {
        let (jti, code, rotated) = task.await.unwrap();
        won[0] += usize::from(jti);
        won[1] += usize::from(code);
        won[2] += usize::from(rotated);
    }
    assert_eq!(won, [1, 1, 1], "exactly one winner each");
}

/// The system's clock: a node whose clock differs from the database's deletes nothing there.
#[allow(clippy::disallowed_methods)]
fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_secs()).unwrap())
}

async fn expiry(store: &Store) {
    let now = wall_clock();
    let old = |age: i64| UsedJti { forget_after: now.plus(-age), ..jti("old") };
    assert_eq!(store.remember_jti(old(3590), now).await.unwrap(), EntryOutcome::Recorded);
    store.forget_expired(now, None).await.unwrap();
    assert_eq!(
        store.remember_jti(old(3610), now).await.unwrap(),
        EntryOutcome::Replay,
        "still within an hour of its time"
    );
    let gone = UsedJti { jti: "older".to_owned(), ..old(3610) };
    assert_eq!(store.remember_jti(gone.clone(), now).await.unwrap(), EntryOutcome::Recorded);
    assert!(store.forget_expired(now, None).await.unwrap() > 0);
    assert_eq!(store.remember_jti(gone, now).await.unwrap(), EntryOutcome::Recorded);
    // Refusals older than configured are deleted; grants stay.
    let at = |name: &'static str, age: i64| AuditEvent { at: now.plus(-age), ..event(name) };
    for (name, age) in [("kept", 50), ("gone", 200)] {
        let operation = Entry::new(Some(at(name, age).refused("test")));
        store.record(operation, now).await.unwrap();
    }
    store.record(Entry::new(Some(at("granted", 200))), now).await.unwrap();
    store.forget_expired(now, Some(100)).await.unwrap();
    let names: Vec<_> = rows(store).await.into_iter().map(|row| row.event).collect();
    let has = |name: &str| names.iter().any(|held| held == name);
    assert!(
        has("token_exchange") && has("admin.change granted") && !has("jwt_bearer"),
        "{names:?}"
    );
}

/// Each algorithm separately, at either server.
async fn keys(store: &Store) {
    for algorithm in ["ES256", "RS256"] {
        keys_of(store, algorithm).await;
    }
}

async fn keys_of(store: &Store, algorithm: &str) {
    let key = |kid: &str| SealedKey {
        kid: format!("{algorithm}-{kid}"),
        algorithm: algorithm.to_owned(),
        sealed: "sealed".to_owned(),
        created_at: NOW,
        retired_at: None,
        signs_from: NOW,
    };
    let tasks: Vec<_> = (0..8)
        .map(|i| {
            let (store, key) = (store.clone(), key(&format!("k{i}")));
            tokio::spawn(async move { store.first_signing_key(&key).await.unwrap().kid })
        })
        .collect();
    let mut kids = BTreeSet::new();
    for task in tasks {
        kids.insert(task.await.unwrap());
    }
    assert_eq!(kids.len(), 1, "of several nodes that start at once one makes the key");
    // Removing a key removes the earlier ones, too. A signing key can be removed only after a later
    // one signs, and removed keys never come back.
    let from = |kid: &str, seconds: i64| SealedKey {
        created_at: NOW.plus(seconds),
        signs_from: NOW.plus(seconds),
        ..key(kid)
    };
    for (kid, seconds) in [("k-a", 10), ("k-b", 20), ("k-c", 100)] {
        store.add_signing_key(&from(kid, seconds), event("rotate")).await.unwrap();
    }
    let now = NOW.plus(50);
    let remove = async |kid: &str| {
        let kid = format!("{algorithm}-{kid}");
        store.remove_signing_key(&kid, event("remove"), now).await.unwrap()
    };
    let left = async || {
        let held = store.signing_keys().await.unwrap().into_iter();
        let own = held.filter(|key| key.algorithm == algorithm);
        let mut left: Vec<_> = own.map(|key| key.kid).collect();
        left.sort();
        left
    };
    assert!(!remove("k-b").await, "it signs");
    assert!(!remove("none").await);
    assert!(remove("k-c").await, "it does not sign yet");
    assert!(left().await.contains(&format!("{algorithm}-k-a")));
    assert!(remove("k-a").await);
    assert_eq!(left().await, [format!("{algorithm}-k-b")]);
    // Two that were to begin in the same second begin one after the other, whatever they are called.
    for (kid, begins) in [("k-9", 21), ("k-0", 22)] {
        let signs_from = store.add_signing_key(&from(kid, 20), event("rotate")).await.unwrap();
        assert_eq!(signs_from, NOW.plus(begins));
    }
    assert!(!remove("k-0").await, "it signs");
    assert!(remove("k-9").await);
    assert_eq!(left().await, [format!("{algorithm}-k-0")]);
    // At a node whose clock is behind, the one key that is left has not begun; it signs all the same
    // and cannot be removed, nor can any of several such keys but the later ones.
    let now = NOW.plus(-3600);
    let remove = async |kid: &str| {
        let kid = format!("{algorithm}-{kid}");
        store.remove_signing_key(&kid, event("remove"), now).await.unwrap()
    };
    assert!(!remove("k-0").await, "there is no other");
    store.add_signing_key(&from("k-1", 30), event("rotate")).await.unwrap();
    let keys = store.signing_keys().await.unwrap();
    let own = keys.iter().filter(|key| key.algorithm == algorithm);
    let signs = SealedKey::that_signs(own, now).unwrap();
    assert_eq!(signs.kid, format!("{algorithm}-k-0"));
    assert!(!remove("k-0").await, "it signs");
    assert!(remove("k-1").await);
    assert!(!remove("k-0").await, "there is no other");
    // A key that is retired is followed at once: by the next one where one is published, else by the new one.
    let now = NOW.plus(50);
    let retire = async |kid: &str, successor: &str| {
        let (kid, successor) = (format!("{algorithm}-{kid}"), from(successor, 50));
        store.retire_signing_key(&kid, &successor, event("retire"), now).await.unwrap()
    };
    let follows = |kid: &str, seconds| Retirement::Follows {
        kid: format!("{algorithm}-{kid}"),
        signs_from: NOW.plus(seconds),
    };
    assert_eq!(retire("none", "k-2").await, Retirement::Missing);
    assert_eq!(retire("k-0", "k-2").await, follows("k-2", 50));
    assert_eq!(retire("k-0", "k-3").await, Retirement::DoesNotSign);
    store.add_signing_key(&from("k-4", 600), event("rotate")).await.unwrap();
    assert_eq!(retire("k-4", "k-3").await, Retirement::DoesNotSign, "it is published only");
    assert_eq!(retire("k-2", "k-3").await, follows("k-4", 51), "and nothing new is made");
    assert_eq!(left().await, ["k-0", "k-2", "k-4"].map(|kid| format!("{algorithm}-{kid}")));
    let keys = store.signing_keys().await.unwrap();
    let own = keys.iter().filter(|key| key.algorithm == algorithm);
    assert_eq!(SealedKey::that_signs(own, NOW.plus(51)).unwrap().kid, format!("{algorithm}-k-4"));
    let other = if algorithm == "RS256" { "ES256" } else { "RS256" };
    let other = SealedKey { algorithm: other.to_owned(), ..from("k-5", 60) };
    let kid = format!("{algorithm}-k-4");
    let retired = store.retire_signing_key(&kid, &other, event("retire"), NOW.plus(60));
    assert_eq!(retired.await.unwrap(), Retirement::OtherAlgorithm(algorithm.to_owned()));
}

fn sqlite() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("a #%? file.db").display());
    (folder, url)
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let (_folder, url) = sqlite();
    whole_contract(Store::open(&url).await.unwrap(), &url).await;
}

#[tokio::test]
async fn a_url_of_another_kind_is_refused() {
    assert!(matches!(Store::open("mysql://x").await, Err(StoreError::Url(_))));
}

/// The child process of the kill tests: records for ever, and prints what was acknowledged.
#[tokio::test]
async fn child_of_the_kill_tests() {
    #[allow(clippy::disallowed_methods, reason = "how the parent tells the child that it is one")]
    let Ok(url) = std::env::var("PASSAVANT_TEST_CHILD") else { return };
    let store = Store::open(&url).await.unwrap();
    for i in 0.. {
        let id = format!("k{i}");
        let operation = Entry {
            jti: Some(jti(&id)),
            grant: Some(grant(&id, "kill")),
            ..Entry::new(Some(event("mint").with(Detail::Jti, &id)))
        };
        assert_eq!(store.record(operation, NOW).await.unwrap(), EntryOutcome::Recorded);
        println!("ack {id}");
    }
}

/// Repeatedly kills a process that records; everything it acknowledged must exist.
async fn survives_kills(url: &str) {
    let mut acknowledged = Vec::new();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["store_contract::child_of_the_kill_tests", "--exact", "--nocapture"])
        .env("PASSAVANT_TEST_CHILD", url)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        // The test harness prints the test's name in front of the first line.
        acknowledged.extend(line.rsplit_once("ack ").map(|(_, id)| id.to_owned()));
        if acknowledged.len() == 200 {
            child.kill().await.unwrap(); // SIGKILL
            break;
        }
    }
    assert_eq!(acknowledged.len(), 200);
    let store = Store::open(url).await.unwrap();
    for id in &acknowledged {
        assert!(store.live_grant(id).await.unwrap().is_some(), "{id} was acknowledged and is lost");
        assert_eq!(
            store.remember_jti(jti(id), NOW).await.unwrap(),
            EntryOutcome::Replay,
            "{id} is honoured twice"
        );
    }
    let mints: Vec<_> =
        rows(&store).await.into_iter().filter(|row| row.event == "token_exchange").collect();
    for row in &mints {
        assert!(store.live_grant(&row.details["jti"]).await.unwrap().is_some(), "half a write");
    }
    assert!(mints.len() >= acknowledged.len());
}

#[tokio::test]
async fn sqlite_loses_nothing_acknowledged_to_kill_9() {
    let (_folder, url) = sqlite();
    drop(Store::open(&url).await.unwrap());
    survives_kills(&url).await;
}

#[cfg(feature = "postgres")]
pub(crate) mod postgres {
    use super::*;

    /// A database of its own for each test.
    pub(crate) async fn fresh(name: &str) -> String {
        #[allow(clippy::disallowed_methods, reason = "./test says where its PostgreSQL is")]
        let base = std::env::var("PASSAVANT_TEST_POSTGRES")
            .expect("the feature `postgres` needs PASSAVANT_TEST_POSTGRES=postgres://…/postgres");
        let (server, _) = base.rsplit_once('/').unwrap();
        let made = tokio::process::Command::new("psql")
            .args([
                &base,
                "-qc",
                &format!("DROP DATABASE IF EXISTS {name}"),
                "-c",
                &format!("CREATE DATABASE {name}"),
            ])
            .status()
            .await
            .unwrap();
        assert!(made.success());
        format!("{server}/{name}")
    }

    /// Runs a statement as the database's administrator.
    async fn sql(text: &str) {
        #[allow(clippy::disallowed_methods, reason = "./test says where its PostgreSQL is")]
        let base = std::env::var("PASSAVANT_TEST_POSTGRES").unwrap();
        let done = tokio::process::Command::new("psql").args([&base, "-qc", text]).output().await;
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// A restart of the database, then a failover that leaves its connections read-only.
    #[tokio::test]
    async fn connections_that_died_or_may_not_write_any_more_are_thrown_away() {
        let name = "passavant_dead";
        let url = fresh(name).await;
        let store = Store::open(&url).await.unwrap();
        let many = async |kind: &str| {
            let tasks: Vec<_> = (0..40)
                .map(|i| {
                    let (store, jti) = (store.clone(), jti(&format!("{kind}-{i}")));
                    tokio::spawn(async move { store.remember_jti(jti, NOW).await })
                })
                .collect();
            let mut failed = 0;
            for task in tasks {
                failed += usize::from(!matches!(task.await.unwrap(), Ok(EntryOutcome::Recorded)));
            }
            failed
        };
        let end_all = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        assert_eq!(many("at first").await, 0);
        // Broken connections cause no errors, neither for reads nor for writes.
        for round in 0..3 {
            sql(&end_all).await;
            store.generation().await.unwrap();
            assert_eq!(many(&format!("restarted-{round}")).await, 0, "round {round}");
            assert!(store.is_ready().await);
        }
        sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
        sql(&end_all).await;
        assert!(many("read-only").await > 0);
        // Readiness is checked once a second.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        assert!(!store.is_ready().await, "nothing can be recorded");
        // The old connections are still read-only: they are not used again.
        sql(&format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
        let mut tries = 0;
        while !store.is_ready().await {
            tries += 1;
            assert!(tries < 50, "it never finds out");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(many("again").await, 0);
    }

    #[tokio::test]
    async fn postgres_keeps_the_contract() {
        let url = fresh("passavant_contract").await;
        whole_contract(Store::open(&url).await.unwrap(), &url).await;
    }

    #[tokio::test]
    async fn postgres_loses_nothing_acknowledged_to_kill_9() {
        let url = fresh("passavant_kill").await;
        drop(Store::open(&url).await.unwrap());
        survives_kills(&url).await;
    }

    #[tokio::test]
    async fn of_fifty_uses_on_three_nodes_one_succeeds() {
        let url = fresh("passavant_nodes").await;
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Store::open(&url).await.unwrap());
        }
        let tasks: Vec<_> = (0..50)
            .map(|i| {
                let node = nodes[i % 3].clone();
                tokio::spawn(async move { node.remember_jti(jti("nodes"), NOW).await.unwrap() })
            })
            .collect();
        let mut first = 0;
        for task in tasks {
            first += usize::from(task.await.unwrap() == EntryOutcome::Recorded);
        }
        assert_eq!(first, 1);
        // A change on one node makes decisions of the others stale at once.
        let generation = nodes[0].generation().await.unwrap();
        let group = Group { name: "g".to_owned(), description: String::new() };
        nodes[1].put(&group, Put::Create, event("admin")).await.unwrap();
        let operation = Entry { generation: Some(generation), ..Entry::new(Some(event("mint"))) };
        assert_eq!(nodes[2].record(operation, NOW).await.unwrap(), EntryOutcome::Stale);
    }

    #[tokio::test]
    async fn an_idp_on_postgres_walks_the_five_steps() {
        let url = fresh("passavant_world").await;
        let wishes =
            passavant_tests::world::Wishes { idp_database: Some(url), ..Default::default() };
        let world = passavant_tests::world::World::with(wishes).await;
        assert!(!world.access_token().await.is_empty());
    }
}
