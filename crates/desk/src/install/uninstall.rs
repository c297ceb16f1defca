//! `passavant uninstall`: removes our entries, and restores files that nobody else has changed.

use super::{
    by_id,
    clients::CLIENTS,
    edit,
    entry::{bridged, is_bridge, profile_of},
    ledger::{Entry, Ledger, Written, read_config},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use passavant_host as system;
use passavant_host::{Places, plain, plain_lines};
use passavant_proto::secret::sha256;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

#[derive(Args)]
pub struct Uninstall {
    /// MCP clients to take Passavant's entries out of
    #[arg(value_name = "CLIENT", required_unless_present = "all")]
    clients: Vec<String>,
    /// Out of every MCP client that has some
    #[arg(long, conflicts_with = "clients")]
    all: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn uninstall(args: &Uninstall) -> Result<()> {
    let _lock = crate::vault::lock_installs()?;
    let mut ledger = Ledger::read()?;
    let ids: Vec<String> = by_id(&args.clients)?.iter().map(|c| c.id.to_owned()).collect();
    let own = system::settings_folder()?;
    // Entries of a sign-in whose folder is gone, such as a demo's, belong to nobody else.
    find_unrecorded(&mut ledger, &args.clients, &own)?;
    let is_ours = |entry: &Entry| {
        entry.profile.as_ref().is_none_or(|profile| *profile == own || !profile.is_dir())
    };
    let chosen = |written: &Written| args.all || ids.contains(&written.client);
    let mut others: Vec<PathBuf> = Vec::new();
    let mut files = Vec::new();
    for (file, written) in ledger.files.iter().filter(|(_, written)| chosen(written)) {
        if written.entries.iter().any(is_ours) {
            files.push(file.clone());
        }
        let theirs = written.entries.iter().filter(|entry| !is_ours(entry));
        others.extend(theirs.filter_map(|entry| entry.profile.clone()));
    }
    if files.is_empty() && others.is_empty() {
        println!("Passavant has written nothing there.");
        return Ok(());
    }
    let mut failed = 0;
    for file in files {
        let Some(written) = ledger.files.get(&file).cloned() else { continue };
        let (ours, theirs): (Vec<Entry>, Vec<Entry>) =
            written.entries.iter().cloned().partition(is_ours);
        // The original file does not contain the other sign-in's entries.
        let changed_since = written.changed_since || !theirs.is_empty();
        let part = Written { entries: ours, changed_since, ..written.clone() };
        match take_back(&file, &part, args.dry_run) {
            Ok(()) if args.dry_run => {}
            Ok(()) => {
                if theirs.is_empty() {
                    ledger.files.remove(&file);
                } else {
                    let left = read_config(&file)?.unwrap_or_default();
                    let left = sha256(left.as_bytes());
                    let rest = Written { entries: theirs, left, ..written };
                    ledger.files.insert(file, rest);
                }
                ledger.write()?;
            }
            Err(error) => {
                failed += 1;
                let error = plain_lines(&system::told(&error));
                eprintln!("error: {} was not changed: {error}", file.display());
            }
        }
    }
    others.sort();
    others.dedup();
    for other in others {
        println!(
            "Entries of another sign-in stay; `PASSAVANT_HOME={} passavant uninstall --all` takes them out.",
            system::quoted(&other.display().to_string())
        );
    }
    if failed > 0 {
        bail!("{failed} file{} could not be changed back", if failed == 1 { "" } else { "s" });
    }
    Ok(())
}

/// Finds entries of this sign-in's bridge that are not recorded: the ledger was lost, or somebody
/// copied them.
fn find_unrecorded(ledger: &mut Ledger, named: &[String], own: &Path) -> Result<()> {
    let places = Places::here()?;
    let usual = system::unusual_home()?.is_none();
    for client in CLIENTS.iter().filter(|c| named.is_empty() || named.iter().any(|id| c.id == id)) {
        for file in (client.files)(&places) {
            let file = fs::canonicalize(&file).unwrap_or(file);
            if ledger.files.contains_key(&file) {
                continue;
            }
            let Ok(Some(text)) = read_config(&file) else { continue };
            // A file that cannot be parsed contains nothing to remove.
            let Ok(held) = edit::entries(client.format, &text, client.path) else { continue };
            let ours = |entry: &Value| match profile_of(entry) {
                Some(home) => Path::new(&home) == own,
                None => usual,
            };
            let found = held.iter().filter(|(_, entry)| is_bridge(entry) && ours(entry));
            let entries: Vec<Entry> = found
                .map(|(name, entry)| Entry {
                    path: client.path.iter().map(|key| (*key).to_owned()).collect(),
                    name: name.clone(),
                    before: None,
                    wrote: entry.clone(),
                    profile: Some(own.to_owned()),
                })
                .collect();
            if !entries.is_empty() {
                let client = client.id.to_owned();
                let written =
                    Written { client, entries, changed_since: true, ..Written::default() };
                ledger.files.insert(file, written);
            }
        }
    }
    Ok(())
}

/// Removes the entries of a sign-in that is about to end, such as a demo's.
pub fn take_out(profile: &Path) -> Result<()> {
    let _lock = crate::vault::lock_installs()?;
    // Compare the folder as it is written in entries, even if the folder for temporary files has
    // several names.
    let profile = &fs::canonicalize(profile).unwrap_or_else(|_| profile.to_owned());
    let mut ledger = Ledger::read()?;
    let mine = |entry: &Entry| entry.profile.as_deref() == Some(profile.as_path());
    let files: Vec<PathBuf> = ledger
        .files
        .iter()
        .filter(|(_, written)| written.entries.iter().any(mine))
        .map(|(file, _)| file.clone())
        .collect();
    for file in files {
        let Some(written) = ledger.files.get(&file).cloned() else { continue };
        let (ours, theirs): (Vec<Entry>, Vec<Entry>) =
            written.entries.iter().cloned().partition(mine);
        let changed_since = written.changed_since || !theirs.is_empty();
        take_back(&file, &Written { entries: ours, changed_since, ..written.clone() }, false)?;
        if theirs.is_empty() {
            ledger.files.remove(&file);
        } else {
            let left = sha256(read_config(&file)?.unwrap_or_default().as_bytes());
            ledger.files.insert(file, Written { entries: theirs, left, ..written });
        }
        ledger.write()?;
    }
    Ok(())
}

/// Restores the original file if nobody else has changed it; otherwise removes our entries from the
/// current one.
fn take_back(file: &Path, written: &Written, dry_run: bool) -> Result<()> {
    let Some(now) = read_config(file)? else {
        println!("{} is gone already.", file.display());
        return Ok(());
    };
    let untouched = !written.changed_since && sha256(now.as_bytes()) == written.left;
    let before = match &written.backup {
        Some(backup) if untouched => fs::read_to_string(backup).ok(),
        _ => None,
    };
    if untouched && written.backup.is_none() {
        if dry_run {
            println!("{} would be removed: Passavant made it.", file.display());
        } else {
            fs::remove_file(file)?;
            println!("{} is removed: Passavant had made it.", file.display());
        }
        return Ok(());
    }
    let whole = before.is_some();
    let after = match before {
        Some(before) => before,
        None => without_ours(file, &now, written)?,
    };
    if dry_run {
        let name = file.display().to_string();
        let diff = similar::TextDiff::from_lines(&now, &after);
        print!("{}", plain_lines(&diff.unified_diff().header(&name, &name).to_string()));
        return Ok(());
    }
    if after == now {
        // A copy of the current content.
        if let Some(backup) = &written.backup
            && read_config(backup).ok().flatten().as_deref() == Some(now.as_str())
        {
            let _ = fs::remove_file(backup);
        }
        println!("{}: nothing of Passavant's is in it.", file.display());
        return Ok(());
    }
    system::replace_file(file, after.as_bytes())?;
    match &written.backup {
        Some(backup) if whole => {
            // The backup is not needed any more; the person may have deleted it.
            let _ = fs::remove_file(backup);
            println!("{} is as it was without Passavant.", file.display());
        }
        backup => {
            println!(
                "{}: Passavant's entries are taken out; what else has changed since stays.",
                file.display()
            );
            if let Some(backup) = backup.as_ref().filter(|backup| backup.exists()) {
                println!("  As it was before Passavant: {}", backup.display());
            }
        }
    }
    Ok(())
}

/// The file without our entries, and with the entries they replaced. An entry that somebody has
/// changed since is left alone.
fn without_ours(file: &Path, now: &str, written: &Written) -> Result<String> {
    let client = CLIENTS.iter().find(|client| client.id == written.client);
    let client = client.context("it was written by another version")?;
    let mut after = now.to_owned();
    for entry in &written.entries {
        let path: Vec<&str> = entry.path.iter().map(String::as_str).collect();
        let format = match (&client.native, path == client.path) {
            (Some(native), false) => native.format,
            _ => client.format,
        };
        let held = edit::entries(format, &after, &path)?;
        match (held.get(&entry.name), &entry.before) {
            (None, _) => {}
            // It is ours as long as it runs this program, even if somebody adjusted it.
            (Some(held), _) if *held != entry.wrote && !is_bridge(held) => {
                let name = plain(&entry.name);
                println!("{}: `{name}` was changed since; it stays.", file.display());
            }
            (Some(_), Some(before)) => {
                after = edit::set(format, &after, &path, &entry.name, before)?;
            }
            (Some(_), None) => after = edit::remove(format, &after, &path, &entry.name)?,
        }
        // The same entry, renamed by somebody since.
        let Some(url) = bridged(&entry.wrote) else { continue };
        let same = |held: &Value| {
            bridged(held) == Some(url) && profile_of(held) == profile_of(&entry.wrote)
        };
        let held = edit::entries(format, &after, &path)?;
        for (name, _) in held.iter().filter(|(_, held)| same(held)) {
            after = edit::remove(format, &after, &path, name)?;
        }
    }
    Ok(after)
}
