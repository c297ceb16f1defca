//! Databases of the first schema, filled by the program of that time (`fixtures/first`), are
//! migrated without loss, and still serve a node of that version.
#![allow(clippy::disallowed_methods, reason = "the contract of the store itself")]

use passavant_proto::event::RequestEvent;
use passavant_proto::{
    identifier::Issuer,
    oauth::client::{Client, GovernedResource},
    policy::{Connection, RegisteredResource, ResourceAuthorizationServer},
    secret::Secret,
    time::Timestamp,
    xaa::trust::{Account, SubjectLink, TrustedIssuer},
};
use passavant_store::*;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Row};
use std::collections::BTreeMap;

/// A few minutes after the last time in the fixtures.
const NOW: Timestamp = Timestamp(1_795_960_950);

/// The contents of one kind of database's fixture that the test looks for.
struct Held {
    refresh_token: &'static str,
    /// `jti` of an ID-JAG that was redeemed, and `sub` of its person.
    redeemed: &'static str,
    subject: &'static str,
}

const SQLITE: Held = Held {
    refresh_token: "QW0VZ4wJLBMQ-hq4neYYOquRhjDmufGWGQ2lXty2KPM",
    redeemed: "jcnIak182RRRukyqaEV8LQ",
    subject: "NPXwSfqJ6uNlLyU5YlvHnQ",
};

async fn by_hand(url: &str) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let url = url
        .strip_prefix("sqlite:")
        .map_or_else(|| url.to_owned(), |path| format!("sqlite://{path}?mode=rwc"));
    AnyConnection::connect(&url).await.unwrap()
}

async fn run(url: &str, sql: &str) {
    let mut connection = by_hand(url).await;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn fixture(role: &str, kind: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join(format!("fixtures/first/{role}.{kind}.sql"))).unwrap()
}

/// Columns by table: type, and whether a value is required.
async fn columns(url: &str) -> BTreeMap<(String, String), (String, bool)> {
    let mut connection = by_hand(url).await;
    let sql = if url.starts_with("sqlite:") {
        "SELECT m.name, c.name, c.type, CASE WHEN c.\"notnull\" = 1 AND c.dflt_value IS NULL THEN 1 ELSE 0 END \
         FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'"
    } else {
        "SELECT table_name::text, column_name::text, data_type::text, CASE WHEN is_nullable = 'NO' \
         AND column_default IS NULL AND is_identity = 'NO' THEN 1 ELSE 0 END::bigint \
         FROM information_schema.columns WHERE table_schema = 'public'"
    };
    let rows = sqlx::raw_sql(sql).fetch_all(&mut connection).await.unwrap();
    rows.iter()
        .map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get::<i64, _>(3) == 1)))
        .collect()
}

async fn ids<R: Record>(store: &Store) -> Vec<String> {
    store.all::<R>().await.unwrap().iter().map(Record::name).collect()
}

/// What a node of the first version writes for an existing person.
fn written_by_the_first_version(person: &str) -> String {
    let later = NOW.plus(3600).0;
    format!(
        "INSERT INTO sessions (cookie_hash, sid, user_id, authentication, expires_at) VALUES \
         ('old-cookie', 'old-sid', '{person}', '{{\"auth_time\":1795960950,\"acr\":\"urn:x\",\"amr\":[\"pwd\"]}}', {later});
         INSERT INTO authorization_codes (hash, sid, family, document, expires_at) VALUES \
         ('old-code', 'old-sid', 'old-family', '{{}}', {later});
         INSERT INTO pushed_requests (hash, client_id, document, expires_at) VALUES ('old-request', 'agent', '{{}}', {later});
         INSERT INTO refresh_tokens (hash, family, sid, user_id, client_id, document, idle_expires_at, expires_at) \
         SELECT 'old-token', 'old-family', 'old-sid', user_id, client_id, document, {later}, {later} \
         FROM refresh_tokens WHERE client_id = 'agent' AND replaced_at IS NULL;
         INSERT INTO used_jtis (namespace, jti, forget_after) VALUES ('id_jag x', 'old-jti', {later});
         INSERT INTO grants (jti, kind, user_id, client_id, party, lineage, expires_at) VALUES \
         ('old-grant', 'id_jag', '{person}', 'agent', 'x', 'old-sid', {later});
         INSERT INTO grants (jti, kind, user_id, client_id, party, lineage, expires_at, revoked_at) VALUES \
         ('family:old-gone', 'family', '', '', '', '', {later}, 1);
         INSERT INTO audit (at, event, outcome, person, client, document) VALUES (1, 'token_exchange', 'granted', '{person}', 'agent', '{{}}');
         INSERT INTO installations (id, user_id, document, used_at) SELECT 'old-installation', user_id, document, used_at FROM installations;
         INSERT INTO directory (kind, id, name, document) VALUES ('group', 'old', 'old', '{{\"name\":\"old\"}}');
         UPDATE meta SET value = value + 1 WHERE key = 'generation';"
    )
}

/// The columns that people are searched by follow what a node of the first version writes.
async fn people_are_found_by_what_an_earlier_version_wrote(idp: &Store, url: &str) {
    run(
        url,
        r#"UPDATE directory SET document = REPLACE(document, '"email":null', '"email":"e.e@acme.example"') WHERE name = 'erin'"#,
    )
    .await;
    let wanted = Wanted { after: String::new(), search: "E.E@ACME".to_owned(), limit: 10 };
    let found = idp.page::<User>(&wanted).await.unwrap().records;
    assert_eq!(found.iter().map(|user| user.username.as_str()).collect::<Vec<_>>(), ["erin"]);
}

async fn upgrades(idp_url: &str, ras_url: &str, kind: &str, held: &Held) {
    for (url, role) in [(idp_url, "idp"), (ras_url, "ras")] {
        run(url, &fixture(role, kind)).await;
    }
    let before = columns(idp_url).await;
    let (idp, ras) = (Store::open(idp_url).await.unwrap(), Store::open(ras_url).await.unwrap());
    // No column is removed, and new columns are optional for a program that does not know them.
    let after = columns(idp_url).await;
    for (column, shape) in &before {
        assert_eq!(after.get(column), Some(shape), "{column:?}");
    }
    let new = after.iter().filter(|(column, _)| {
        !before.contains_key(column) && before.keys().any(|(table, _)| *table == column.0)
    });
    for (column, (_, must)) in new {
        assert!(!must, "{column:?} has to be given, and an earlier version does not");
    }
    // All data exist.
    idp.claim("idp", "http://127.0.0.1:7401").await.unwrap();
    ras.claim("ras", "http://127.0.0.1:7402").await.unwrap();
    let mut people = ids::<User>(&idp).await;
    people.sort();
    assert_eq!(people, ["erin", "max"]);
    assert_eq!(ids::<Group>(&idp).await, ["engineering"]);
    assert_eq!(ids::<Client>(&idp).await, ["agent"]);
    assert_eq!(ids::<Connection>(&idp).await, ["agent-log", "engineering-log"]);
    assert_eq!(ids::<ResourceAuthorizationServer>(&idp).await.len(), 1);
    assert_eq!(ids::<RegisteredResource>(&idp).await, ["http://127.0.0.1:7403/mcp"]);
    assert_eq!(ids::<GovernedResource>(&ras).await, ["http://127.0.0.1:7403/mcp"]);
    assert_eq!(ids::<TrustedIssuer>(&ras).await, ["http://127.0.0.1:7401"]);
    assert_eq!(ids::<Client>(&ras).await, ["acme-agent"]);
    assert_eq!(ids::<Account>(&ras).await.len(), 1);
    assert!(idp.unreadable().is_empty() && ras.unreadable().is_empty());
    assert_eq!(idp.signing_keys().await.unwrap().len(), 1);
    assert_eq!(idp.installations(None).await.unwrap().len(), 1);
    let link = SubjectLink {
        issuer: Issuer::parse("http://127.0.0.1:7401").unwrap().into(),
        tenant: None,
        subject: held.subject.to_owned(),
    };
    assert!(ras.linked_account(&link).await.unwrap().is_some());
    // An earlier sign-in continues.
    let hash = Secret::new(held.refresh_token).hash();
    let RefreshTokenState::Live(token) = idp.refresh_token(&hash, NOW).await.unwrap() else {
        panic!("the refresh token of before is not live");
    };
    assert_eq!((token.user_id.as_str(), token.client_id.as_str()), (held.subject, "agent"));
    let exchange = async |jti: &str, hash: &str, sid: &str| {
        let event = AuditEvent::granted(RequestEvent::TokenExchange, NOW).person(held.subject);
        let mut operation = Entry::new(Some(event));
        operation.generation = Some(idp.generation().await.unwrap());
        operation.session = Some(sid.to_owned());
        operation.refresh_token = Some(hash.to_owned());
        operation.grant = Some(Grant {
            jti: jti.to_owned(),
            kind: TokenKind::IdJag,
            user_id: held.subject.to_owned(),
            client_id: "agent".to_owned(),
            party: "http://127.0.0.1:7402".to_owned(),
            lineage: sid.to_owned(),
            expires_at: NOW.plus(120),
            opens: None,
        });
        idp.record(operation, NOW).await.unwrap()
    };
    assert_eq!(exchange("new-grant", &hash, &token.sid).await, EntryOutcome::Recorded);
    // What was used up stays used up.
    let redeemed = |jti: &str| UsedJti {
        namespace: "id_jag http://127.0.0.1:7401".to_owned(),
        jti: jti.to_owned(),
        forget_after: NOW.plus(300),
    };
    assert_eq!(ras.remember_jti(redeemed(held.redeemed), NOW).await.unwrap(), EntryOutcome::Replay);
    assert_eq!(ras.remember_jti(redeemed("another"), NOW).await.unwrap(), EntryOutcome::Recorded);
    // A node of the first version writes as it always did, and this version takes its rows over.
    run(idp_url, &written_by_the_first_version(held.subject)).await;
    assert!(idp.session_not_ended("old-sid").await.unwrap());
    assert_eq!(exchange("beside", "old-token", "old-sid").await, EntryOutcome::Recorded);
    assert!(idp.live_grant("old-grant").await.unwrap().is_some());
    assert!(idp.is_family_revoked("old-gone").await.unwrap());
    assert!(ids::<Group>(&idp).await.contains(&"old".to_owned()));
    assert_eq!(idp.installations(None).await.unwrap().len(), 2);
    people_are_found_by_what_an_earlier_version_wrote(&idp, idp_url).await;
    // Rows that it does not know are left alone; after a restart the migrations do not run again.
    idp.clone().close().await;
    let again = Store::open(idp_url).await.unwrap();
    assert_eq!(columns(idp_url).await, after);
    assert!(again.is_ready().await);
    assert!(again.session_not_ended("old-sid").await.unwrap());
    // A database with an incompatible later schema is not opened.
    run(idp_url, "UPDATE meta SET value = 2 WHERE key = 'schema'").await;
    again.close().await;
    assert!(matches!(Store::open(idp_url).await, Err(StoreError::TooNew { found: 2, known: 1 })));
    // A database with a compatible later schema is opened.
    run(
        idp_url,
        "UPDATE meta SET value = 1 WHERE key = 'schema'; UPDATE meta SET value = 99 WHERE key = 'additions';
         ALTER TABLE grants ADD COLUMN later TEXT;",
    )
    .await;
    let later = Store::open(idp_url).await.unwrap();
    assert!(later.is_ready().await);
    assert!(later.live_grant("old-grant").await.unwrap().is_some());
}

#[tokio::test]
async fn databases_of_the_first_schema_are_brought_up_to_date_and_serve_the_first_version_too() {
    let folder = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    upgrades(&url("idp.db"), &url("ras.db"), "sqlite", &SQLITE).await;
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use crate::store_contract::postgres::fresh;

    const POSTGRES: Held = Held {
        refresh_token: "9LGHqTJa3TdexG7m00O4cNkeMahL-rS7qb0z_GVXH_s",
        redeemed: "XdbVZ__h5VCSIzI0-shRXg",
        subject: "_-x0wkTmqej_6_XOCDC3EA",
    };

    #[tokio::test]
    async fn databases_of_the_first_schema_are_brought_up_to_date_on_postgresql_too() {
        let (idp, ras) =
            (fresh("passavant_upgrade_idp").await, fresh("passavant_upgrade_ras").await);
        upgrades(&idp, &ras, "postgres", &POSTGRES).await;
    }

    /// Nodes that start at once; and one that was frozen in the middle of its migrations.
    #[tokio::test]
    async fn nodes_that_start_at_once_wait_for_each_other_and_not_without_end() {
        let url = fresh("passavant_upgrade_turns").await;
        run(&url, &fixture("idp", "postgres")).await;
        let mut frozen = by_hand(&url).await;
        let sql = "SET idle_in_transaction_session_timeout = 3000; BEGIN; SELECT pg_advisory_xact_lock(7317001)::text";
        sqlx::raw_sql(sql).execute(&mut frozen).await.unwrap();
        let began = std::time::Instant::now();
        let nodes: Vec<_> = (0..4)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { Store::open(&url).await.map(drop) })
            })
            .collect();
        for node in nodes {
            node.await.unwrap().unwrap();
        }
        assert!(began.elapsed().as_secs() < 60, "the frozen node was waited for");
    }

    /// A long-running reader, such as a backup, while a node migrates the schema: older nodes
    /// continue to work.
    #[tokio::test]
    async fn a_step_that_has_to_wait_holds_nobody_up() {
        let url = fresh("passavant_upgrade_reader").await;
        run(&url, &fixture("idp", "postgres")).await;
        let mut reader = by_hand(&url).await;
        let sql = "BEGIN; SELECT COUNT(*) FROM refresh_tokens; SELECT COUNT(*) FROM directory";
        sqlx::raw_sql(sql).execute(&mut reader).await.unwrap();
        let of = url.clone();
        let node = tokio::spawn(async move {
            let began = std::time::Instant::now();
            Store::open(&of).await.map(drop).unwrap();
            began.elapsed()
        });
        // As an older node writes.
        let mut before = by_hand(&url).await;
        let (began, mut longest) = (std::time::Instant::now(), std::time::Duration::ZERO);
        while began.elapsed().as_secs() < 6 {
            let asked = std::time::Instant::now();
            let sql = "UPDATE refresh_tokens SET document = document WHERE hash = 'x'; \
                       SELECT COUNT(*) FROM directory";
            sqlx::raw_sql(sql).execute(&mut before).await.unwrap();
            longest = longest.max(asked.elapsed());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(longest.as_millis() < 2500, "a node of before waited for {longest:?}");
        assert!(!node.is_finished(), "the reader is still there");
        sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();
        let released = std::time::Instant::now();
        node.await.unwrap();
        assert!(released.elapsed().as_secs() < 6, "{:?}", released.elapsed());
    }
}
