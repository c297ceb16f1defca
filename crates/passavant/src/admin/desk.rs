//! Administrators, keys, installations and sessions.

use super::{
    acts::{Saying, add, change, delete, list, typed},
    api::Api,
    args::{Administrator, ById, Installation, Key, SessionAct},
    secret_out::SecretOut,
    show::show,
};
use anyhow::Result;
use passavant_admin::types::{Administrators, WhoseQuery};
use passavant_host as system;
use passavant_host::plain;
use serde_json::{Value, json};

pub(super) async fn administrators(api: &Api, act: Administrator, as_json: bool) -> Result<()> {
    let (made, token_out) = match act {
        Administrator::List(listing) => {
            return administrator_table(&list::<Administrators>(api, &listing).await?, as_json);
        }
        Administrator::Change { name, role } => {
            let said = Saying::new().with("role", Some(role));
            return show(&change::<Administrators>(api, &name, said).await?, as_json);
        }
        Administrator::Delete(gone) => {
            return show(&delete::<Administrators>(api, gone).await?, as_json);
        }
        Administrator::Add { name, role, token } => {
            let out = SecretOut::new("--token-out", token.token_out)?;
            let body = json!({"name": name, "role": role, "days": token.days});
            (add::<Administrators>(api, body).await?, out)
        }
        Administrator::Renew { name, token } => {
            let out = SecretOut::new("--token-out", token.token_out)?;
            (serde_json::to_value(api.server.renew(&name, token.days).await?)?, out)
        }
    };
    let mut out = token_out;
    let made = out.keep(made, "token")?;
    if as_json {
        return show(&made, as_json);
    }
    let text = |member: &str| plain(made.get(member).and_then(Value::as_str).unwrap_or_default());
    println!("{} has the role {}; the token ends {}.", text("name"), text("role"), ends(&made));
    match &out.file {
        Some(file) => println!(
            "The token is in {}: run `passavant admin{} --secret-file {} …` to use it.",
            file.display(),
            api.again,
            system::quoted(&file.display().to_string())
        ),
        None => println!(
            "The token is shown only this once. Keep it in a file (mode 0600), and give that file \
             with --secret-file:\n\
             {}",
            text("token")
        ),
    }
    Ok(())
}

/// When a token expires.
fn ends(administrator: &Value) -> String {
    let at = administrator.get("expires_at").and_then(Value::as_i64).unwrap_or_default();
    match at - system::clock().now().0 {
        ..=0 => "ended".to_owned(),
        1..=86_400 => "in less than a day".to_owned(),
        left => format!("in {} days", (left + 86_399) / 86_400),
    }
}

fn administrator_table(all: &Value, as_json: bool) -> Result<()> {
    if as_json || all.as_array().is_none_or(Vec::is_empty) {
        return show(all, as_json);
    }
    let mut table = vec![["NAME", "ROLE", "TOKEN ENDS", "ADDED BY"].map(str::to_owned)];
    for row in all.as_array().into_iter().flatten() {
        let text = |name: &str| plain(row.get(name).and_then(Value::as_str).unwrap_or_default());
        table.push([text("name"), text("role"), ends(row), text("added_by")]);
    }
    print!("{}", system::table(&table));
    Ok(())
}

pub(super) async fn keys(api: &Api, act: Key) -> Result<Value> {
    match act {
        Key::List => Ok(serde_json::to_value(api.server.keys().await?.items)?),
        Key::Rotate { now, algorithm } => {
            let rotation = typed(json!({"now": now, "algorithm": algorithm}))?;
            Ok(serde_json::to_value(api.server.rotate_key(&rotation).await?)?)
        }
        Key::Retire { kid } => Ok(serde_json::to_value(api.server.retire_key(&kid).await?)?),
        Key::Remove { kid } => {
            api.server.remove_key(&kid).await?;
            Ok(Value::Null)
        }
    }
}

pub(super) async fn installations(api: &Api, act: Installation, as_json: bool) -> Result<()> {
    let listed = match act {
        Installation::Revoke(ById { id }) => {
            api.server.revoke_installation(&id).await?;
            println!("done");
            return Ok(());
        }
        Installation::List { user } => api.server.installations(&WhoseQuery { user }).await?,
    };
    let mut rows: Vec<Value> =
        listed.items.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    for record in listed.unreadable {
        rows.push(serde_json::to_value(record)?);
    }
    let rows = Value::from(rows);
    if as_json {
        println!("{}", system::json_text(&rows)?);
        return Ok(());
    }
    let now = system::clock().now().0;
    let mut table = vec![["ID", "PERSON", "DEVICE", "ENROLLED", "LAST USED"].map(str::to_owned)];
    for row in rows.as_array().into_iter().flatten() {
        let text = |name: &str| plain(row.get(name).and_then(Value::as_str).unwrap_or(""));
        let when = |name: &str| {
            system::ago(now - row.get(name).and_then(Value::as_i64).unwrap_or_default())
        };
        let times = [when("enrolled_at"), when("used_at")];
        let [enrolled, used] = times;
        table.push([text("id"), text("user"), text("device"), enrolled, used]);
    }
    print!("{}", system::table(&table));
    Ok(())
}

pub(super) async fn sessions(api: &Api, act: SessionAct, as_json: bool) -> Result<()> {
    let listed = match act {
        SessionAct::End(ById { id }) => {
            api.server.end_session(&id).await?;
            println!("done");
            return Ok(());
        }
        SessionAct::List { user } => api.server.sessions(&WhoseQuery { user }).await?,
    };
    if as_json {
        println!("{}", system::json_text(&serde_json::to_value(listed.items)?)?);
        return Ok(());
    }
    let now = system::clock().now();
    let mut table = vec![["ID", "PERSON", "SIGNED IN", "BY"].map(str::to_owned)];
    for session in listed.items {
        table.push([
            plain(&session.id),
            plain(&session.user),
            match session.signed_in_at.filter(|at| at.0 > 0) {
                // The identity provider in front does not tell.
                None => "not told".to_owned(),
                Some(at) => system::ago(now.since(at)),
            },
            plain(&session.amr.join(" ")),
        ]);
    }
    print!("{}", system::table(&table));
    Ok(())
}
