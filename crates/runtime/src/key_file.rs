//! One key-encryption key follows another, while nodes run: added to the file to open (`add`), put first
//! to seal (`turn`), and the earlier ones taken out when nothing needs them any more (`trim`). Between
//! the steps the file goes to every node, and each is started again.

use crate::{
    config::Config,
    keys::{self, KeyEncryptionKey},
    serve::open_store,
};
use anyhow::{Context, Result, bail};
use passavant_host as system;
use passavant_proto::secret::Secret;

/// The lines of a key file, each a key.
fn lines(config: &Config) -> Result<Vec<Secret>> {
    let text = system::read_secret(&config.key_file, config.secrets)?;
    KeyEncryptionKey::new(&text)?;
    let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(Secret::new).collect())
}

fn write(config: &Config, lines: &[Secret]) -> Result<()> {
    let mut text = zeroize::Zeroizing::new(String::new());
    for line in lines {
        text.push_str(line.expose());
        text.push('\n');
    }
    system::write_private(&config.key_file, text.as_bytes(), false)
}

/// Adds a key as the last line: it opens, and seals nothing yet.
pub fn add(config: &Config) -> Result<()> {
    let mut lines = lines(config)?;
    if lines.len() > 1 {
        bail!(
            "{} holds {} keys already\nhint: finish with `passavant key-file turn` and `trim` first",
            config.key_file.display(),
            lines.len()
        );
    }
    lines.push(system::entropy().secret());
    write(config, &lines)?;
    println!(
        "{} holds a second key. Copy the file to every node, start each again, then run `passavant key-file turn`.",
        config.key_file.display()
    );
    Ok(())
}

/// Puts the last key first: it seals from now on, and the others still open.
pub fn turn(config: &Config) -> Result<()> {
    let mut lines = lines(config)?;
    if lines.len() < 2 {
        bail!(
            "{} holds one key\nhint: `passavant key-file add` makes the one that follows it",
            config.key_file.display()
        );
    }
    lines.rotate_right(1);
    write(config, &lines)?;
    println!(
        "The newest key is the first. Copy the file to every node and start each again: it seals everything anew. Then \
         run `passavant key-file trim`."
    );
    Ok(())
}

/// Takes out the keys that nothing needs any more, after a look at every database of the config.
pub async fn trim(config: &Config) -> Result<()> {
    let lines = lines(config)?;
    let Some(first) = lines.first().filter(|_| lines.len() > 1) else {
        bail!("{} holds one key: there is nothing to take out", config.key_file.display());
    };
    let kek = KeyEncryptionKey::new(first)?;
    let idp = config.idp.iter().map(|(place, _)| place);
    for place in idp.chain(config.ras.iter().map(|(_, place, _)| place)) {
        let store = open_store(&place.database).await.with_context(|| place.issuer.to_string())?;
        let others = keys::sealed_otherwise(&store, &kek).await;
        store.close().await;
        let others = others.with_context(|| place.issuer.to_string())?;
        if others > 0 {
            bail!(
                "{}: {others} values are not sealed under the first key\nhint: `passavant serve` seals them anew at its \
                 start; its log says when, and which it cannot open",
                place.issuer
            );
        }
    }
    for gateway in &config.gateways {
        let file = gateway.folder.join("gateway.key");
        if !keys::gateway_is_first(&file, &kek)? {
            bail!(
                "{}: not sealed under the first key\nhint: `passavant serve` seals it anew at its start",
                file.display()
            );
        }
    }
    let taken_out = lines.len() - 1;
    write(config, std::slice::from_ref(first))?;
    println!(
        "{} holds one key; {taken_out} taken out. Copy the file to every node. Backups made before need the earlier key: \
         keep it with them.",
        config.key_file.display()
    );
    Ok(())
}
