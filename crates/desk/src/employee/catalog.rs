//! `passavant servers` and `passavant installations`.

use super::Common;
use anyhow::{Result, bail};
use passavant_host as system;
use passavant_host::plain;

/// The MCP servers this person may reach, and those that are refused.
pub async fn servers(common: &Common, as_json: bool) -> Result<()> {
    let (client, _) = common.signed_in()?;
    let Some(catalog) = client.catalog().await? else {
        bail!(
            "{} has no catalog: it is not a Passavant identity provider\n\
             hint: ask IT for the URLs; `passavant tools URL` works without a catalog",
            client.settings().idp
        );
    };
    if as_json {
        println!("{}", system::json_text(&catalog)?);
        return Ok(());
    }
    if catalog.servers.is_empty() {
        println!(
            "At {}, no MCP server is open to installations of Passavant yet. Ask IT.",
            plain(&catalog.company)
        );
        return Ok(());
    }
    let mut rows = vec![["NAME", "VENDOR", "URL", "ACCESS"].map(str::to_owned)];
    for server in &catalog.servers {
        let access = if server.granted {
            server.scopes.clone()
        } else {
            let why = server.explanation.as_deref().unwrap_or("not connected");
            format!("refused: {why}")
        };
        rows.push([server.title(), &server.vendor, &server.resource, &access].map(plain));
    }
    print!("{}", system::table(&rows));
    let missing: Vec<_> = catalog
        .servers
        .iter()
        .filter(|server| {
            let known = &client.settings().ras_clients;
            server.granted
                && server.ras_client_id.is_some()
                && !known.contains_key(&server.authorization_server)
        })
        .collect();
    for server in missing {
        println!(
            "\n{} knows this client as `{}`: run `passavant secret {} {}` once, IT has the secret.",
            plain(server.title()),
            plain(server.ras_client_id.as_deref().unwrap_or_default()),
            plain(&server.authorization_server),
            plain(server.ras_client_id.as_deref().unwrap_or_default()),
        );
    }
    Ok(())
}

/// Lists the person's installations, or revokes one.
pub async fn installations(common: &Common, revoke: Option<&str>, as_json: bool) -> Result<()> {
    let (client, _) = common.signed_in()?;
    if let Some(id) = revoke {
        if !client.revoke_installation(id).await? {
            bail!("you have no installation `{id}`\nhint: `passavant installations` lists them");
        }
        println!(
            "Revoked. The installation gets no new tokens; its access tokens expire within \
             minutes."
        );
        return Ok(());
    }
    let Some(held) = client.installations().await? else {
        bail!(
            "{} does not enrol installations: it is not a Passavant identity provider",
            client.settings().idp
        );
    };
    if as_json {
        println!("{}", system::json_text(&held)?);
        return Ok(());
    }
    let now = system::clock().now().0;
    let mut rows = vec![["ID", "DEVICE", "ENROLLED", "LAST USED", ""].map(str::to_owned)];
    for installation in &held {
        let this = if installation.this_one { "this computer" } else { "" };
        rows.push([
            plain(&installation.id),
            plain(&installation.device),
            system::ago(now - installation.enrolled_at),
            system::ago(now - installation.used_at),
            this.to_owned(),
        ]);
    }
    print!("{}", system::table(&rows));
    Ok(())
}
