//! Where this program and other programs keep a person's settings, and the migration from names of
//! earlier builds.

use crate::variable;
use anyhow::{Context, Result};
use passavant_proto::formerly;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder for this person's settings.
#[allow(clippy::disallowed_methods)] // the one place that may read the environment
pub fn settings_folder() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // Different spellings of a path have to give the same sign-in.
    let whole = |home: PathBuf| {
        let home = std::path::absolute(&home).unwrap_or(home);
        // Few programs understand the canonical form of a path on Windows.
        let canonical = if cfg!(windows) { None } else { fs::canonicalize(&home).ok() };
        canonical.unwrap_or_else(|| plain_path(&home))
    };
    variable("PASSAVANT_HOME")
        .map(PathBuf::from)
        .map(whole)
        .map(current_folder)
        .or_else(|| from("XDG_CONFIG_HOME").map(|home| home.join("passavant")))
        .or_else(|| from("APPDATA").map(|home| home.join("passavant")))
        .or_else(|| from("HOME").map(|home| home.join(".config").join("passavant")))
        .context("no folder for settings: neither PASSAVANT_HOME nor HOME is set")
}

/// Renames, once, the folders in which an earlier build kept this person's settings.
pub fn take_over_settings() -> Result<()> {
    let own = variable("PASSAVANT_HOME").is_none().then(settings_folder).transpose()?;
    let places = Places::here().map(|places| places.own_config());
    for folder in own.into_iter().chain(places.ok()) {
        let before = folder.with_file_name(formerly::NAME);
        if take_over(&before, &folder)? {
            eprintln!(
                "note: {} was renamed to {}, with everything in it; `passavant install` points the \
                 entries in your MCP clients' configs to this program",
                before.display(),
                folder.display()
            );
        }
    }
    Ok(())
}

/// Renames a file or folder of an earlier build, unless the new name is in use.
pub fn take_over(before: &Path, now: &Path) -> Result<bool> {
    // An empty folder can be replaced without loss, and the system does that.
    let is_empty = || fs::read_dir(now).is_ok_and(|mut held| held.next().is_none());
    let taken = fs::symlink_metadata(now).is_ok_and(|held| !(held.is_dir() && is_empty()));
    if taken || fs::symlink_metadata(before).is_err() {
        return Ok(false);
    }
    match fs::rename(before, now) {
        Ok(()) => Ok(true),
        // Another process did it first.
        Err(_) if fs::symlink_metadata(now).is_ok() => Ok(false),
        Err(error) => Err(error).with_context(|| {
            format!(
                "{} cannot be renamed to {}\nhint: rename it by hand",
                before.display(),
                now.display()
            )
        }),
    }
}

/// A settings folder that was named before it was renamed.
pub fn current_folder(folder: PathBuf) -> PathBuf {
    let now = folder.with_file_name(formerly::NOW);
    let was = folder.file_name().is_some_and(|name| name == formerly::NAME);
    if was && !folder.is_dir() && now.is_dir() { now } else { folder }
}

/// The absolute path of something that does not exist yet, without `.` and `..`.
fn plain_path(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// The settings folder, if it is not the default one: whoever starts this program for the person
/// has to set it.
pub fn unusual_home() -> Result<Option<PathBuf>> {
    let folder = settings_folder()?;
    let usual = Places::here().map(|places| places.own_config());
    Ok(usual.map_or(true, |usual| usual != folder).then_some(folder))
}

/// Where other programs of this person keep their settings.
pub struct Places {
    pub home: PathBuf,
}

impl Places {
    #[allow(clippy::disallowed_methods)] // the one place that may read the environment
    pub fn here() -> Result<Self> {
        let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
        let home = home.filter(|value| !value.is_empty()).map(PathBuf::from);
        Ok(Self { home: home.context("no home folder: HOME is not set")? })
    }

    /// The default folder for this person's settings.
    pub fn own_config(&self) -> PathBuf {
        if self.is_windows() {
            self.config().join("passavant")
        } else {
            self.home.join(".config/passavant")
        }
    }

    /// The folder that an environment variable names.
    #[allow(clippy::disallowed_methods)] // the one place that may read the environment
    #[allow(clippy::unused_self)] // a place is asked for its environment
    pub fn env(&self, name: &str) -> Option<PathBuf> {
        std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// `XDG_CONFIG_HOME`, or `~/.config`.
    pub fn xdg_config(&self) -> PathBuf {
        self.env("XDG_CONFIG_HOME").unwrap_or_else(|| self.home.join(".config"))
    }

    /// Where programs on this operating system keep settings.
    pub fn config(&self) -> PathBuf {
        if self.is_macos() {
            self.home.join("Library/Application Support")
        } else if self.is_windows() {
            self.env("APPDATA").unwrap_or_else(|| self.home.join("AppData/Roaming"))
        } else {
            self.xdg_config()
        }
    }

    /// `%LOCALAPPDATA%` on Windows.
    pub fn local_app_data(&self) -> Option<PathBuf> {
        self.env("LOCALAPPDATA").filter(|_| self.is_windows())
    }

    #[allow(clippy::unused_self)] // a place is asked what system it is on
    pub fn is_windows(&self) -> bool {
        cfg!(windows)
    }

    #[allow(clippy::unused_self)] // a place is asked what system it is on
    pub fn is_macos(&self) -> bool {
        cfg!(target_os = "macos")
    }

    /// Whether a program of this name is on the PATH.
    #[allow(clippy::disallowed_methods)] // the one place that may read the environment
    #[allow(clippy::unused_self)] // a place is asked what it has
    pub fn has_program(&self, name: &str) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let file = if cfg!(windows) { format!("{name}.exe") } else { name.to_owned() };
        std::env::split_paths(&path).any(|folder| folder.join(&file).is_file())
    }
}
