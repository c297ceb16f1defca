//! `passavant init`.

use crate::config::EXAMPLE;
use anyhow::{Result, bail};
use passavant_host as system;
use passavant_proto::formerly;
use std::path::Path;

/// Writes all three files, or none.
pub fn init(folder: &Path) -> Result<()> {
    let files =
        ["passavant.toml", "passavant.key", "passavant.admin-secret"].map(|name| folder.join(name));
    let before = folder.join(formerly::name("passavant.toml"));
    for file in files.iter().chain([&before]) {
        if std::fs::symlink_metadata(file).is_ok() {
            bail!(
                "{} exists already; nothing was written\nhint: choose another folder, or move the \
                 file away first",
                file.display()
            );
        }
    }
    let entropy = system::entropy();
    let [config, key, secret] = files;
    system::write_private(&key, entropy.secret().expose().as_bytes(), true)?;
    system::write_private(&secret, entropy.secret().expose().as_bytes(), true)?;
    system::write_private(&config, EXAMPLE.as_bytes(), true)?;
    println!("Wrote {}: the config, with a comment for every key.", config.display());
    println!("Wrote {}: seals the signing keys. Back it up.", key.display());
    println!("Wrote {}: the secret for `passavant admin`.", secret.display());
    println!(
        "\nNext: edit the config, then\n  passavant check --config {0}\n  passavant serve --config {0}",
        config.display()
    );
    Ok(())
}
