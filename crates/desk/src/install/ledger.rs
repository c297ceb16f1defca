//! A record of what was written where, so that it can be undone; and one config file with pending
//! changes.

use super::{
    edit::{self, Format},
    entry::is_bridge,
};
use anyhow::{Context, Result, bail};
use passavant_host as system;
use passavant_host::Places;
use passavant_proto::{formerly, secret::sha256};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Records what was written where, so that it can be undone.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    pub(super) files: BTreeMap<PathBuf, Written>,
}

/// One config file as Passavant left it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) client: String,
    pub(super) entries: Vec<Entry>,
    /// A copy of the file before the first change; `None` if there was no file.
    pub(super) backup: Option<PathBuf>,
    /// SHA-256 of the file as Passavant left it.
    pub(super) left: String,
    /// Somebody else has written the file since the first change: it is never restored as a whole.
    #[serde(default)]
    pub(super) changed_since: bool,
}

/// One of our entries.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: Vec<String>,
    pub(super) name: String,
    /// The entry that was there before.
    pub(super) before: Option<Value>,
    /// What Passavant wrote.
    pub(super) wrote: Value,
    /// The folder of the sign-in that the bridge uses.
    #[serde(default)]
    pub(super) profile: Option<PathBuf>,
}

/// Largest config, in bytes.
pub(super) const LARGEST: u64 = 16 * 1024 * 1024;

pub(super) const LEDGER: &str = "installed.json";

impl Ledger {
    /// One ledger for each person, whatever sign-ins they have.
    pub(super) fn path() -> Result<PathBuf> {
        Ok(Places::here()?.own_config().join(LEDGER))
    }

    pub(super) fn read() -> Result<Self> {
        let path = Self::path()?;
        let mut ledger = Self::read_at(&path)?.unwrap_or_default();
        // An earlier version kept one ledger for each sign-in, and did not record which sign-in an
        // entry belongs to.
        ledger.of_profile(&Places::here()?.own_config());
        let own = system::settings_folder()?;
        // A ledger under the folder's former name, in case the new folder existed already.
        let before = Places::here()?.own_config().with_file_name(formerly::NAME);
        for folder in [own, before] {
            let earlier = folder.join(LEDGER);
            if earlier != path
                && let Some(mut theirs) = Self::read_at(&earlier)?
            {
                theirs.of_profile(&folder);
                ledger.take(theirs);
                ledger.write()?;
                fs::remove_file(&earlier)?;
            }
        }
        for entry in ledger.files.values_mut().flat_map(|written| &mut written.entries) {
            entry.profile = entry.profile.take().map(system::current_folder);
        }
        Ok(ledger)
    }

    /// Assigns entries without a sign-in to this one.
    pub(super) fn of_profile(&mut self, profile: &Path) {
        for entry in self.files.values_mut().flat_map(|written| &mut written.entries) {
            entry.profile.get_or_insert_with(|| profile.to_owned());
        }
    }

    /// Takes over the contents of another ledger. A file that both have written is never restored
    /// as a whole.
    pub(super) fn take(&mut self, other: Self) {
        for (file, written) in other.files {
            let Some(held) = self.files.get_mut(&file) else {
                self.files.insert(file, written);
                continue;
            };
            held.changed_since = true;
            for entry in written.entries {
                let same = |held: &Entry| held.path == entry.path && held.name == entry.name;
                if !held.entries.iter().any(same) {
                    held.entries.push(entry);
                }
            }
        }
    }

    pub(super) fn read_at(path: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map(Some).with_context(|| {
                format!("{} cannot be read\nhint: move it away; backups stay", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Takes over a file of our own, among another program's files, that an earlier build wrote
    /// under another name.
    pub(super) fn take_over(&mut self, file: &Path) -> Result<()> {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let before = file.with_file_name(formerly::name(name));
        let before = fs::canonicalize(&before).unwrap_or(before);
        if !self.files.contains_key(&before) || !system::take_over(&before, file)? {
            return Ok(());
        }
        if let Some(written) = self.files.remove(&before) {
            let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
            self.files.insert(file, written);
        }
        self.write()
    }

    /// The value that was last written into an entry.
    pub(super) fn wrote(&self, file: &Path, path: &[&str], name: &str) -> Option<&Value> {
        let entries = &self.files.get(file)?.entries;
        entries.iter().find(|entry| entry.path == path && entry.name == name).map(|e| &e.wrote)
    }

    pub(super) fn write(&self) -> Result<()> {
        system::write_private(&Self::path()?, serde_json::to_string_pretty(self)?.as_bytes(), false)
    }
}

/// A file with changes that were not written yet.
pub(super) struct Change {
    pub(super) file: PathBuf,
    pub(super) format: Format,
    pub(super) before: Option<String>,
    pub(super) after: String,
    pub(super) entries: Vec<Entry>,
    /// Our entries existed before: the earlier content is no state to restore.
    pub(super) had_ours: bool,
}

/// The text of a config; `None` if the file does not exist. The size is limited, because a link in
/// somebody else's project may lead to an endless file.
pub(super) fn read_config(file: &Path) -> Result<Option<String>> {
    match fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(there) if !there.is_file() || there.len() > LARGEST => {
            bail!(
                "{} cannot be a config file: it is not a regular file, or is larger than 16 MiB",
                file.display()
            );
        }
        _ => {}
    }
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(Some(text))
}

impl Change {
    /// Opens `file`; a symbolic link is followed.
    pub(super) fn open(file: &Path, format: Format) -> Result<Self> {
        if fs::symlink_metadata(file).is_ok() && !file.exists() {
            bail!(
                "{} is a link whose target does not exist\nhint: correct or remove the link",
                file.display()
            );
        }
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let before = read_config(&file)?;
        let after = before.clone().unwrap_or_default();
        Ok(Self { file, format, before, after, entries: Vec::new(), had_ours: false })
    }

    pub(super) fn set(
        &mut self,
        path: &[&str],
        name: &str,
        value: &Value,
        ledger: &Ledger,
    ) -> Result<()> {
        let not_changed = || format!("{} was not changed", self.file.display());
        let held = edit::entries(self.format, &self.after, path).with_context(not_changed)?;
        let wrote = ledger.wrote(&self.file, path, name);
        let ours = wrote.is_some() || held.get(name).is_some_and(is_bridge);
        self.had_ours |= ours;
        // An entry that replaces somebody else's contains nothing of theirs.
        let merged = edit::merged(held.get(name).filter(|_| ours), wrote, value);
        self.after =
            edit::set(self.format, &self.after, path, name, &merged).with_context(not_changed)?;
        self.entries.push(Entry {
            path: path.iter().map(|key| (*key).to_owned()).collect(),
            name: name.to_owned(),
            // An entry of ours is never restored, whichever version or name of this program wrote
            // it.
            before: held.get(name).filter(|_| !ours).cloned(),
            wrote: value.clone(),
            profile: Some(system::settings_folder()?),
        });
        Ok(())
    }

    /// Removes one of our entries, which another one replaces.
    pub(super) fn remove(&mut self, path: &[&str], name: &str) -> Result<()> {
        let not_changed = || format!("{} was not changed", self.file.display());
        self.after =
            edit::remove(self.format, &self.after, path, name).with_context(not_changed)?;
        self.had_ours = true;
        Ok(())
    }

    pub(super) fn is_change(&self) -> bool {
        self.before.as_deref().unwrap_or_default() != self.after
    }

    pub(super) fn diff(&self) -> String {
        let before = self.before.as_deref().unwrap_or_default();
        let name = self.file.display().to_string();
        let diff = similar::TextDiff::from_lines(before, &self.after);
        diff.unified_diff().context_radius(3).header(&name, &name).to_string()
    }

    /// Writes the file, after a backup of its first content.
    pub(super) fn write(&self, client: &str, ledger: &mut Ledger) -> Result<()> {
        let written = ledger.files.entry(self.file.clone()).or_default();
        let first = written.left.is_empty();
        let before = self.before.as_deref().unwrap_or_default();
        if !first && sha256(before.as_bytes()) != written.left {
            written.changed_since = true;
        }
        if first {
            written.changed_since = self.had_ours;
            client.clone_into(&mut written.client);
            written.backup = match &self.before {
                None => None,
                Some(text) => {
                    let backup = backup_of(&self.file);
                    system::write_private(&backup, text.as_bytes(), true)?;
                    Some(backup)
                }
            };
        }
        for entry in &self.entries {
            let held = |held: &&mut Entry| held.path == entry.path && held.name == entry.name;
            match written.entries.iter_mut().find(held) {
                // The content from before the first change is what gets restored.
                Some(held) => {
                    held.wrote = entry.wrote.clone();
                    held.profile.clone_from(&entry.profile);
                }
                None => written.entries.push(entry.clone()),
            }
        }
        written.left = sha256(self.after.as_bytes());
        // Recorded before the change: a record of a change that did not happen is harmless.
        ledger.write()?;
        // The client may be running, and may write its config itself.
        if read_config(&self.file).ok().flatten() != self.before {
            bail!(
                "{} was changed by another program just now\nhint: run the command again",
                self.file.display()
            );
        }
        system::replace_file(&self.file, self.after.as_bytes())
    }
}

/// An unused file name in the same folder.
pub(super) fn backup_of(file: &Path) -> PathBuf {
    let named = |ending: &str| {
        let mut name = file.file_name().unwrap_or_default().to_os_string();
        name.push(".before-passavant");
        name.push(ending);
        file.with_file_name(name)
    };
    let endings = std::iter::once(String::new()).chain((2..1000).map(|n| format!("-{n}")));
    let mut free = endings.map(|e| named(&e)).filter(|path| fs::symlink_metadata(path).is_err());
    free.next().unwrap_or_else(|| named(""))
}
