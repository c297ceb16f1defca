//! Fifty thousand people, and how they are written into a database.

use crate::{load::Shot, post};
use sqlx::Connection as _;

/// Number of people; everybody is in one of the groups, and in a group of all.
pub(crate) const PEOPLE: usize = 50_000;
pub(crate) const GROUPS: usize = 1_000;
/// Fills a database that has its schema, with one statement for each kind of record.
pub(crate) async fn fill(url: &str) {
    let last = (PEOPLE, GROUPS);
    if let Some(file) = passavant_store::sqlite_path(url) {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
        let mut hand = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {1} - 1) \
             INSERT INTO directory (kind, id, name, document) SELECT 'group', 'g' || i, 'g' || i, \
             json_object('name', 'g' || i, 'description', '') FROM n; \
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {0} - 1) \
             INSERT INTO directory (kind, id, name, document) SELECT 'user', 'u' || i, 'user' || i, \
             json_object('id', 'u' || i, 'username', 'user' || i, 'email', 'user' || i || '@acme.example', \
             'groups', json_array('all', 'g' || (i % {1}))) FROM n",
            last.0, last.1
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut hand).await.unwrap();
    } else {
        let mut hand = sqlx::PgConnection::connect(url).await.unwrap();
        let sql = format!(
            "INSERT INTO directory (kind, id, name, document) SELECT 'group', 'g' || i, 'g' || i, \
             json_build_object('name', 'g' || i, 'description', '')::text FROM generate_series(0, {1} - 1) i; \
             INSERT INTO directory (kind, id, name, document) SELECT 'user', 'u' || i, 'user' || i, \
             json_build_object('id', 'u' || i, 'username', 'user' || i, 'email', 'user' || i || '@acme.example', \
             'groups', json_build_array('all', 'g' || (i % {1})))::text FROM generate_series(0, {0} - 1) i; \
             ANALYZE",
            last.0, last.1
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut hand).await.unwrap();
    }
}

/// A request to the route for changes.
pub(crate) fn shot(path: &str) -> Shot {
    post(path, "text/plain", &[], "x")
}
