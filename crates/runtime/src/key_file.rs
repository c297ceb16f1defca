//! One key-encryption key follows another, while nodes run: added to the file to open (`add`), put first
//! to seal (`turn`), and the earlier ones taken out when nothing needs them any more (`trim`). Between
//! the steps the file goes to every node, and each is started again.

use crate::{
    config::Config,
    keys::{self, KeyEncryptionKey, NEXT},
    serve::open_existing,
};
use anyhow::{Context, Result, bail};
use passavant_host as system;
use passavant_proto::secret::Secret;
use std::{fs, path::Path};

/// The key file of a config, for one step at a time.
struct KeyFile<'a> {
    config: &'a Config,
    path: &'a Path,
    /// The keys, the one that seals first.
    lines: Vec<Secret>,
    /// Locked until the step ends.
    _folder: fs::File,
}

fn is_next(line: &Secret) -> bool {
    line.expose().ends_with(NEXT)
}

impl<'a> KeyFile<'a> {
    fn open(config: &'a Config) -> Result<Self> {
        let Some(path) = &config.key_file else {
            bail!(
                "the config names no key file: the keys are in a token\nhint: make the next one there (`passavant key-file \
                 generate`), and name it as `keys.pkcs11.key`, the one before in `earlier`"
            );
        };
        // What is written takes the place of the file: a link would be replaced, not what it leads to.
        if fs::symlink_metadata(path).is_ok_and(|held| held.file_type().is_symlink()) {
            bail!(
                "{} is a symbolic link\nhint: run this with a config that names the file itself",
                path.display()
            );
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = fs::File::open(folder.unwrap_or(Path::new(".")))?;
        if folder.try_lock().is_err() {
            bail!("another `passavant key-file` is at work on {}", path.display());
        }
        let text = system::read_secret(path, config.secrets)?;
        KeyEncryptionKey::new(&text)?;
        let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(Self { config, path, lines: lines.map(Secret::new).collect(), _folder: folder })
    }

    fn write(&self, path: &Path, lines: &[Secret], new: bool) -> Result<()> {
        let mut text = zeroize::Zeroizing::new(String::new());
        for line in lines {
            text.push_str(line.expose());
            text.push('\n');
        }
        system::write_private(path, text.as_bytes(), new).with_context(|| {
            let name = self.name();
            format!("{name} is as it was")
        })
    }

    fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// Adds a key as the last line: it opens, and seals nothing yet.
pub fn add(config: &Config) -> Result<()> {
    let mut file = KeyFile::open(config)?;
    if file.lines.len() > 1 {
        bail!(
            "{} holds {} keys already\nhint: finish with `passavant key-file turn` and `trim` first",
            file.name(),
            file.lines.len()
        );
    }
    let key = system::entropy().secret();
    file.lines.push(Secret::new(format!("{}{NEXT}", key.expose())));
    file.write(file.path, &file.lines, false)?;
    println!(
        "{} holds a second key. Copy the file to every node, start each again, then run `passavant key-file turn`.",
        file.name()
    );
    Ok(())
}

/// Puts the key that was added first: it seals from now on, and the others still open.
pub fn turn(config: &Config) -> Result<()> {
    let mut file = KeyFile::open(config)?;
    if file.lines.len() < 2 {
        bail!(
            "{} holds one key\nhint: `passavant key-file add` makes the one that follows it",
            file.name()
        );
    }
    let then = "Copy the file to every node and start each again: it seals everything anew. Then run `passavant key-file \
                trim`.";
    let Some(at) = file.lines.iter().position(is_next) else {
        println!("The newest key is the first already: nothing was changed. {then}");
        return Ok(());
    };
    let next = file.lines.remove(at);
    let key = next.expose().strip_suffix(NEXT).unwrap_or_default();
    file.lines.insert(0, Secret::new(key));
    file.write(file.path, &file.lines, false)?;
    println!("The newest key is the first. {then}");
    Ok(())
}

/// Takes out the keys that nothing needs any more, after a look at every database of the config. They go
/// to a file of their own, for backups and for whatever was not looked at.
pub async fn trim(config: &Config) -> Result<()> {
    let file = KeyFile::open(config)?;
    if config.pkcs11.is_some() {
        bail!(
            "the config names a token, whose key seals\nhint: `passavant key-file check` says whether anything needs the file"
        );
    }
    let Some(first) = file.lines.first().filter(|_| file.lines.len() > 1) else {
        bail!("{} holds one key: there is nothing to take out", file.name());
    };
    if file.lines.iter().any(is_next) {
        bail!(
            "{} holds a key that seals nothing yet\nhint: `passavant key-file turn` puts it first",
            file.name()
        );
    }
    let kek = KeyEncryptionKey::new(first)?;
    needs_no_other(file.config, &kek).await?;
    let (taken_out, now) = (file.lines.len() - 1, system::clock().now());
    let mut before = file.path.as_os_str().to_owned();
    before.push(format!(".before-{}", now.0));
    let before = std::path::PathBuf::from(before);
    file.write(&before, &file.lines[1..], true)?;
    file.write(file.path, std::slice::from_ref(first), false)?;
    println!(
        "{} holds one key; {taken_out} taken out, to {}. Copy the first file to every node. Backups made before need the \
         second: keep it with them, away from here, and delete it when they are gone.",
        file.name(),
        before.display()
    );
    Ok(())
}

/// Says whether anything of the config needs another key than the first.
pub async fn check(config: &Config) -> Result<()> {
    let kek = KeyEncryptionKey::of(config)?.first();
    needs_no_other(config, &kek).await?;
    println!(
        "Everything is sealed under the first key: nothing here needs the others. Backups made before may."
    );
    Ok(())
}

/// Makes the key that the config names in its token.
#[cfg(feature = "pkcs11")]
pub fn generate(config: &Config) -> Result<()> {
    let Some(settings) = &config.pkcs11 else {
        bail!(
            "the config names no token (`keys.pkcs11`)\nhint: `passavant key-file add` makes a key in the file"
        );
    };
    let token = crate::pkcs11::Token::open(settings, config.secrets)?;
    if token.generate(&settings.key)? {
        println!(
            "The token `{}` has an AES key `{}`, which it does not give away.",
            settings.token, settings.key
        );
    } else {
        println!(
            "The token `{}` has the key `{}` already: nothing was changed.",
            settings.token, settings.key
        );
    }
    Ok(())
}

/// Makes the key that the config names in its token.
#[cfg(not(feature = "pkcs11"))]
pub fn generate(_: &Config) -> Result<()> {
    bail!("this build knows no PKCS#11\nhint: build it with `--features pkcs11`")
}

/// Looks at every database and gateway of a config.
async fn needs_no_other(config: &Config, kek: &KeyEncryptionKey) -> Result<()> {
    let idp = config.idp.iter().map(|(place, _)| place);
    for place in idp.chain(config.ras.iter().map(|(_, place, _)| place)) {
        let looked = async {
            let store = open_existing(&place.database).await?;
            let looked = keys::needs_no_other(&store, kek).await;
            store.close().await;
            looked
        };
        looked.await.with_context(|| place.issuer.to_string())?;
    }
    for gateway in &config.gateways {
        let key = gateway.folder.join("gateway.key");
        if !key.exists() || !keys::gateway_is_first(&key, kek)? {
            bail!(
                "{}: not there, or not sealed under the first key\nhint: `passavant serve` seals it anew at its start",
                key.display()
            );
        }
    }
    Ok(())
}
