//! The one place that reads the operating system's clock, entropy, files and environment.

pub mod keys;
mod settings;
#[cfg(unix)]
mod socket;

use anyhow::{Context, Result, bail};
use passavant_outbound::{Outbound, Proxies};
use passavant_proto::{
    formerly, others_text,
    secret::Secret,
    time::{Clock, Entropy, Timestamp},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

pub use settings::{
    Places, current_folder, settings_folder, take_over, take_over_settings, unusual_home,
};
#[cfg(unix)]
pub use socket::{is_own_socket, next_of_own, private_socket};

/// Prevents core dumps, because the memory contains keys, and prevents other programs of the same
/// user from reading it.
pub fn keep_no_core() {
    #[cfg(unix)]
    {
        let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        let limited = rustix::process::setrlimit(rustix::process::Resource::Core, none);
        #[cfg(target_os = "linux")]
        let limited = limited.and_then(|()| {
            use rustix::process::{DumpableBehavior, set_dumpable_behavior};
            set_dumpable_behavior(DumpableBehavior::NotDumpable)
        });
        if let Err(error) = limited {
            eprintln!("warning: a crash may write secrets to a core file: {error}");
        }
    }
}

/// Raises the limit of file descriptors to the maximum, because each connection needs one and most
/// services start with a limit of about a thousand.
pub fn raise_descriptors() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let held = getrlimit(Resource::Nofile);
        let wanted = Rlimit { current: held.maximum.or(Some(1 << 20)), ..held };
        if held.current != wanted.current
            && let Err(error) = setrlimit(Resource::Nofile, wanted)
        {
            tracing::warn!(%error, "the number of open files cannot be raised");
        }
    }
}

/// The operating system's wall clock.
#[allow(clippy::disallowed_methods)] // the one place that may read it
pub fn clock() -> Clock {
    Clock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    })
}

/// The operating system's entropy, by way of aws-lc.
#[allow(clippy::disallowed_methods)] // the one place that may draw it
pub fn entropy() -> Entropy {
    Entropy::new(|buffer| {
        if aws_lc_rs::rand::fill(buffer).is_err() {
            // Ending the process is better than guessable tokens.
            tracing::error!("the operating system has no entropy");
            std::process::abort();
        }
    })
}

/// The restricted HTTP client. It trusts `roots` (PEM files) besides the platform's authorities.
pub fn outbound(roots: &[PathBuf]) -> Result<Outbound> {
    let mut pems = Vec::new();
    for root in roots {
        pems.push(roots_of(root)?);
    }
    Ok(Outbound::new(&pems)?)
}

/// The certificates in a PEM file. The error names the file if it contains none.
pub fn roots_of(file: &Path) -> Result<Vec<u8>> {
    let name = file.display();
    let pem =
        fs::read(file).with_context(|| format!("the certificate file {name} cannot be read"))?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(found) if !found.is_empty() => Ok(pem),
        _ if pem.first() == Some(&0x30) => bail!(
            "{name} is a certificate in DER, not in PEM\nhint: `openssl x509 -inform der -in {name} -out roots.pem` \
             makes it PEM"
        ),
        _ => bail!(
            "{name} holds no certificate in PEM\nhint: it has to begin with -----BEGIN CERTIFICATE-----"
        ),
    }
}

/// Like [`outbound`], for a person's own program: it uses the proxies of their environment. A
/// server uses none, because others name the URLs that it fetches.
#[allow(clippy::disallowed_methods)] // the one place that may read the environment
pub fn desk_outbound(roots: &[PathBuf]) -> Result<Outbound> {
    let roots = &extra_roots(roots);
    let set = |names: &[&str]| {
        let mut values = names.iter().filter_map(|name| std::env::var(name).ok());
        values.find(|value| !value.trim().is_empty())
    };
    let all = set(&["ALL_PROXY", "all_proxy"]);
    let proxies = Proxies {
        https: set(&["HTTPS_PROXY", "https_proxy"]).or_else(|| all.clone()),
        http: set(&["http_proxy", "HTTP_PROXY"]).or(all),
        none_for: set(&["NO_PROXY", "no_proxy"]),
    };
    Ok(outbound(roots)?.through(&proxies)?)
}

/// Writes a file that only its owner may read, completely or not at all. With `new` it does not
/// replace an existing file.
pub fn write_private(path: &Path, content: &[u8], new: bool) -> Result<()> {
    let name = path.display();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private_folder(folder)?;
    if new && fs::symlink_metadata(path).is_ok() {
        bail!("{name} exists already\nhint: choose another folder, or move the file away first");
    }
    // Temporary files are created for their owner only (0600).
    let mut file = tempfile::Builder::new()
        .prefix(".passavant")
        .tempfile_in(folder)
        .with_context(|| format!("{name} cannot be written"))?;
    file.write_all(content).and_then(|()| file.as_file().sync_all())?;
    if new {
        file.persist_noclobber(path).with_context(|| format!("{name} cannot be written"))?;
    } else {
        keep_readers(path, file.as_file())
            .with_context(|| format!("{name} cannot be written with the owner that it has"))?;
        file.persist(path).with_context(|| format!("{name} cannot be written"))?;
    }
    // Until then a power cut may undo the new name.
    #[cfg(unix)]
    fs::File::open(folder).and_then(|folder| folder.sync_all())?;
    Ok(())
}

/// Gives the file that takes the place of `path` its owner, group and mode: others may have to read it.
fn keep_readers(path: &Path, file: &fs::File) -> Result<()> {
    let Ok(held) = fs::metadata(path) else { return Ok(()) };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let now = file.metadata()?;
        if (now.uid(), now.gid()) != (held.uid(), held.gid()) {
            std::os::unix::fs::fchown(file, Some(held.uid()), Some(held.gid()))?;
        }
    }
    file.set_permissions(held.permissions())?;
    Ok(())
}

/// Creates a folder that only its owner may access, unless it exists.
pub fn private_folder(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let made = builder.create(folder);
    made.with_context(|| format!("the folder {} cannot be made", folder.display()))
}

/// Whether a folder belongs to another user, or anybody may write into it: then its contents cannot
/// be trusted.
pub fn is_anybodys_folder(folder: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let own = rustix::process::geteuid().as_raw();
        fs::metadata(folder).is_ok_and(|metadata| {
            (metadata.uid() != own && metadata.uid() != 0)
                || metadata.permissions().mode() & 0o002 != 0
        })
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        false
    }
}

/// Opens a file for locking, private to its owner, and creates it if it is missing.
pub fn open_private(path: &Path) -> Result<fs::File> {
    let mut options = fs::File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // Somebody may have put a symbolic link here, which leads elsewhere, or a pipe, which would
        // block.
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        options.mode(0o600);
    }
    options.open(path).with_context(|| format!("{} cannot be opened", path.display()))
}

/// Opens a file for appending, private to its owner, and creates it if it is missing.
pub fn append_private(path: &Path) -> Result<fs::File> {
    let mut options = fs::File::options();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).with_context(|| format!("{} cannot be opened", path.display()))
}

/// Who else may have access to a file that contains secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// Nobody, and it must not be a symbolic link: files that this program writes itself.
    Nobody,
    /// A group may read it, and links may lead to it: as programs that renew certificates provide
    /// keys.
    Readers,
    /// As orchestrators mount secrets: links may lead to it, and a group may read it if nobody may
    /// write it.
    Group,
    /// Like [`Self::Group`], and anybody may read it if nobody may write it: the administrator says
    /// that there are no other users.
    Mounted,
}

/// Opens a file that contains secrets. Fails if others may read or write it, or if it belongs to
/// another user. The checks apply to the opened file itself.
pub fn private_file(path: &Path, shared: Shared) -> Result<fs::File> {
    let name = path.display();
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if shared == Shared::Nobody && is_link {
        bail!(
            "{name} is not a plain file\n\
             hint: give the path of the file itself; secrets are not read through links"
        );
    }
    let mut options = fs::File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        // A pipe in its place must not block.
        let follow = if shared == Shared::Nobody { OFlags::NOFOLLOW } else { OFlags::empty() };
        let flags = (follow | OFlags::NONBLOCK).bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    let file = options.open(path).with_context(|| format!("{name} cannot be read"))?;
    let metadata = file.metadata().with_context(|| format!("{name} cannot be read"))?;
    if !metadata.is_file() {
        bail!("{name} is not a plain file\nhint: give the path of a file that holds the secret");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let (owner, own) = (metadata.uid(), rustix::process::geteuid());
        if owner != own.as_raw() && owner != 0 {
            if own.is_root() {
                bail!(
                    "{name} belongs to another user (uid {owner})\n\
                     hint: run this as that user: `sudo -u '#{owner}' passavant …`"
                );
            }
            bail!(
                "{name} belongs to another user (uid {owner})\n\
                 hint: a secret must be in a file that you own; run `chown {own} {name}` if it is \
                 meant to be",
                own = own.as_raw()
            );
        }
        let mode = metadata.permissions().mode() & 0o777;
        let read_only = mode & 0o222 == 0;
        let (others, fix) = match shared {
            Shared::Group if read_only => (0o037, "440"),
            Shared::Mounted if read_only => (0o033, "444"),
            Shared::Nobody | Shared::Group | Shared::Mounted => (0o077, "600"),
            Shared::Readers => (0o037, "640"),
        };
        if mode & others != 0 {
            let mounted = if shared == Shared::Group && read_only {
                "; if the file is mounted with this mode and no one else uses the machine, set \
                 `mounted_secrets = true` at the top of the config"
            } else {
                ""
            };
            bail!(
                "{name} can be read or written by others (mode {mode:03o})\nhint: run `chmod {fix} \
                 {name}`, and replace the secrets in it if others may have seen them{mounted}"
            );
        }
    }
    Ok(file)
}

/// Whether a file belongs to this user and is accessible to a group, but nobody else: some
/// platforms give a group access to a mounted volume at each start.
pub fn is_given_to_group(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        fs::symlink_metadata(path).is_ok_and(|metadata| {
            let mode = metadata.permissions().mode();
            let own = metadata.uid() == rustix::process::geteuid().as_raw();
            let (group, everybody) = (mode & 0o070, mode & 0o007);
            metadata.is_file() && own && group != 0 && everybody == 0
        })
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// Makes such a file private to its owner again.
pub fn take_back(path: &Path) -> Result<()> {
    #[cfg(unix)]
    if is_given_to_group(path) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Reads a secret file; fails if others may read it.
pub fn read_private(path: &Path) -> Result<Secret> {
    read_secret(path, Shared::Nobody)
}

/// Variables of the environment to pass on to a program.
#[allow(clippy::disallowed_methods)] // the one place that may read the environment
pub fn environment(names: &[&str]) -> Vec<(String, std::ffi::OsString)> {
    let held = |name: &&str| Some(((*name).to_owned(), std::env::var_os(name)?));
    names.iter().filter_map(held).collect()
}

/// One of our environment variables, by its name or by its name in earlier builds.
#[allow(clippy::disallowed_methods)] // the one place that may read the environment
pub fn variable(name: &str) -> Option<std::ffi::OsString> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set(name).or_else(|| set(&formerly::name(name)))
}

/// The certificate authorities that a person trusts besides the system's, from an option or from an
/// earlier build's variable.
pub fn extra_roots(named: &[PathBuf]) -> Vec<PathBuf> {
    match variable("PASSAVANT_EXTRA_ROOTS") {
        Some(file) if named.is_empty() => vec![file.into()],
        _ => named.to_vec(),
    }
}

/// The config keys that the environment sets: `PASSAVANT__IDP__LISTEN`, or
/// `PASSAVANT__IDP__DATABASE_FILE` for a value in a file.
#[allow(clippy::disallowed_methods)] // the one place that may read the environment
pub fn config_overrides(mounted: bool) -> Result<Vec<(String, String)>> {
    // Read with the same rules as the other secrets of the config.
    let mounted = variable("PASSAVANT__MOUNTED_SECRETS").map_or(mounted, |said| said == "true");
    let shared = if mounted { Shared::Mounted } else { Shared::Group };
    let mut set: BTreeMap<String, String> = BTreeMap::new();
    for prefix in [PREFIX.to_owned(), formerly::name(PREFIX)] {
        for (whole, value) in std::env::vars_os() {
            let Some(name) = whole.to_str().and_then(|name| name.strip_prefix(&prefix)) else {
                continue;
            };
            let Some(value) = value.to_str() else { bail!("{prefix}{name} is not Unicode") };
            // Some config keys name files, and end with `file` themselves.
            let names_file = |name: &str| {
                let key = name.rsplit("__").next().unwrap_or(name);
                NAMES_OF_FILES.iter().any(|of| key.eq_ignore_ascii_case(of))
            };
            let mounted = name.strip_suffix("_FILE").filter(|_| !names_file(name));
            let key = mounted.unwrap_or(name);
            // Use the current name, or else that of an earlier build.
            if prefix != PREFIX {
                if set.contains_key(key) {
                    continue;
                }
                eprintln!("warning: {prefix}{name} is called {PREFIX}{name} now: rename it");
            }
            let value = match mounted {
                None => value.to_owned(),
                Some(_) => {
                    let secret = read_secret(Path::new(value), shared);
                    secret.with_context(|| format!("{prefix}{name}"))?.expose().to_owned()
                }
            };
            if set.insert(key.to_owned(), value).is_some() || twice(&prefix, key) {
                bail!("{PREFIX}{key} is set twice, with and without _FILE\nhint: unset one");
            }
        }
    }
    Ok(set.into_iter().collect())
}

/// Whether a key is set both as a value and from a file.
#[allow(clippy::disallowed_methods)] // the one place that may read the environment
fn twice(prefix: &str, key: &str) -> bool {
    let is_set = |name: String| std::env::var_os(name).is_some();
    is_set(format!("{prefix}{key}")) && is_set(format!("{prefix}{key}_FILE"))
}

/// The config keys whose value is the name of a file, and that end with `file`.
pub const NAMES_OF_FILES: &[&str] = &[
    "client_secret_file",
    "file",
    "key_file",
    "metadata_file",
    "pin_file",
    "ras_secret_file",
    "secret_file",
];

/// Prefix of the variables that set config keys.
const PREFIX: &str = "PASSAVANT__";

/// Like [`read_private`], with the access that a deployment allows.
pub fn read_secret(path: &Path, shared: Shared) -> Result<Secret> {
    let file = private_file(path, shared)?;
    let text = std::io::read_to_string(file);
    let text = Secret::new(text.with_context(|| format!("{} cannot be read", path.display()))?);
    // An empty secret would protect nothing.
    if text.expose().trim().is_empty() {
        bail!("{} is empty\nhint: a secret is expected there, in one line", path.display());
    }
    Ok(Secret::new(text.expose().trim()))
}

/// The absolute path of this program: graphical programs often have another PATH. A symbolic link
/// on PATH is kept as such, because it still works after an upgrade has replaced the program.
#[allow(clippy::disallowed_methods)] // the one place that may read the environment
pub fn own_program() -> Result<String> {
    let path = std::env::current_exe().context("the path of this program cannot be found")?;
    let own = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    let name = path.file_name().unwrap_or_default();
    let on_path = std::env::var_os("PATH");
    let folders =
        on_path.iter().flat_map(std::env::split_paths).filter(|folder| folder.is_absolute());
    // Use the name by which it was called, which a package manager may have made.
    let called = std::env::args_os().next().map(PathBuf::from);
    let called = called.as_deref().and_then(Path::file_name).unwrap_or(name).to_owned();
    let named = folders.flat_map(|folder| [folder.join(&called), folder.join(name)]);
    let stable =
        named.into_iter().find(|file| fs::canonicalize(file).is_ok_and(|file| file == own));
    let path = stable.unwrap_or(path);
    let text = path.to_str().context("this program's path is not Unicode")?;
    Ok(text.to_owned())
}

/// The folder of this program, if it is not on PATH.
#[allow(clippy::disallowed_methods)] // the one place that may read the environment
pub fn folder_off_path() -> Option<PathBuf> {
    let own = fs::canonicalize(std::env::current_exe().ok()?).ok()?;
    let folder = own.parent()?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .any(|folder| fs::canonicalize(folder.join("passavant")).is_ok_and(|file| file == own));
    (!found).then_some(folder)
}

/// Replaces another program's file, completely or not at all, and keeps its mode.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.display();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("the folder of {name} cannot be made"))?;
    let held = fs::metadata(path).ok();
    if held.as_ref().is_some_and(|held| held.permissions().readonly()) {
        bail!(
            "{name} was not changed: it is read-only\n\
             hint: make it writable, or write the entry by hand"
        );
    }
    #[cfg(unix)]
    if held.as_ref().is_some_and(|held| std::os::unix::fs::MetadataExt::nlink(held) > 1) {
        bail!(
            "{name} was not changed: it has another hard link, which would keep the old text\n\
             hint: remove the other link, or write the entry by hand"
        );
    }
    let mode = held.map(|held| held.permissions());
    let mut file = tempfile::Builder::new()
        .prefix(".passavant")
        .tempfile_in(folder)
        .with_context(|| format!("{name} cannot be written"))?;
    file.write_all(content).and_then(|()| file.as_file().sync_all())?;
    if let Some(mode) = mode {
        file.as_file().set_permissions(mode)?;
    }
    file.persist(path).with_context(|| format!("{name} cannot be written"))?;
    Ok(())
}

/// Longest text of other parties on a terminal, in characters.
const LONGEST: usize = 2000;

/// Text from elsewhere on one line, safe to print on a terminal.
pub fn plain(text: &str) -> String {
    others_text::shown(text, LONGEST)
}

/// A URL from elsewhere, in full and on one line.
pub fn plain_url(url: &str) -> String {
    others_text::shown(url, usize::MAX)
}

/// Our own text that quotes others, safe to print on a terminal: line breaks are kept, other
/// control characters are not.
pub fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// Whether a command can be started: an executable file, by its path or on PATH.
#[allow(clippy::disallowed_methods)] // the one place that may read the environment
pub fn is_program(name: &str) -> bool {
    let runs = |file: &Path| {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        }
        #[cfg(not(unix))]
        {
            file.is_file()
                || file.with_extension("exe").is_file()
                || file.with_extension("cmd").is_file()
        }
    };
    if name.contains(['/', '\\']) {
        return runs(Path::new(name));
    }
    let path = std::env::var_os("PATH");
    !name.is_empty()
        && path.iter().flat_map(std::env::split_paths).any(|folder| runs(&folder.join(name)))
}

/// An error for a person: the causes from the outermost to the innermost, then what to do.
pub fn told(error: &anyhow::Error) -> String {
    let (mut causes, mut hints): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for cause in error.chain() {
        let text = cause.to_string();
        let (what, hint) = match text.split_once("\nhint: ") {
            Some((what, hint)) => (what.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        };
        // Skip a cause that only repeats the one inside it.
        if causes.last().is_none_or(|outer| !outer.ends_with(&what)) {
            causes.push(what);
        }
        hints.extend(hint);
    }
    let mut told = causes.join(": ");
    for hint in hints {
        told.push_str("\nhint: ");
        told.push_str(&hint);
    }
    told
}

/// Ends quietly when the reader of the output is gone (`passavant … | head`), and with an error that
/// says what is lost when the output cannot be written otherwise (a full disk).
pub fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to std") && said.contains("Broken pipe") {
            // The exit code that a shell reports for a program ended by SIGPIPE.
            std::process::exit(141);
        }
        if let Some(cause) = said.strip_prefix("failed printing to stdout: ") {
            complain(&format!(
                "error: standard output cannot be written: {cause}\n\
                 hint: what this command did is done. A secret or token that it would have shown once is lost: \
                 give the client or the administrator a new one"
            ));
            std::process::exit(1);
        }
        usual(panic);
    }));
}

/// A line on standard error, if it can be written there.
pub fn complain(line: &str) {
    use std::io::Write as _;
    // There is nowhere else to say it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A text as a single word for a POSIX shell.
pub fn quoted(text: &str) -> String {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"-_.,:/@%+=".contains(&b);
    if !text.is_empty() && text.bytes().all(harmless) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// JSON for standard output that contains others' text: programs parse the same values, and the
/// terminal gets no control characters. All JSON is printed in this way.
pub fn json_text(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let pretty = serde_json::to_string_pretty(value)?;
    let mut text = String::with_capacity(pretty.len());
    for c in pretty.chars() {
        if c == '\n' || others_text::is_shown(c) {
            text.push(c);
        } else {
            // It is inside a string: JSON allows such characters nowhere else.
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(text)
}

/// Rows as columns; the last column is not padded.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A duration in the past, in words.
pub fn ago(seconds: i64) -> String {
    match seconds {
        ..=89 => "just now".to_owned(),
        90..=5399 => format!("{} min ago", seconds / 60),
        5400..=129_599 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// Listens for SIGTERM and Ctrl-C from now on; the future ends with the first of them, also where
/// it came before anybody waited.
pub fn shutdown_signal() -> Result<impl Future<Output = ()> + Send + Unpin> {
    #[cfg(unix)]
    let told = {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
    };
    #[cfg(not(unix))]
    let told = async {
        // Where nobody can be told, nobody is.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    Ok(Box::pin(told))
}

/// Ends the process without waiting for anything, with the exit code of SIGTERM.
pub fn end_at_once() -> ! {
    std::process::exit(143)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn with_mode(path: &Path, mode: u32) {
        assert!(fs::set_permissions(path, fs::Permissions::from_mode(mode)).is_ok());
    }

    #[test]
    fn a_process_leaves_no_core_and_is_not_looked_into() {
        keep_no_core();
        let held = rustix::process::getrlimit(rustix::process::Resource::Core);
        assert_eq!((held.current, held.maximum), (Some(0), Some(0)));
        #[cfg(target_os = "linux")]
        assert_eq!(
            rustix::process::dumpable_behavior().ok(),
            Some(rustix::process::DumpableBehavior::NotDumpable)
        );
    }

    #[test]
    fn a_file_with_secrets_is_its_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "x").unwrap();
        for (mode, alone, shared) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, false, true),
            (0o440, false, true),
            (0o660, false, false),
            (0o644, false, false),
            (0o666, false, false),
            (0o602, false, false),
        ] {
            with_mode(&file, mode);
            assert_eq!(private_file(&file, Shared::Nobody).is_ok(), alone, "{mode:o}");
            assert_eq!(private_file(&file, Shared::Readers).is_ok(), shared, "{mode:o}");
        }
        with_mode(&file, 0o600);
        let link = folder.path().join("link");
        symlink(&file, &link).unwrap();
        assert!(private_file(&link, Shared::Nobody).is_err(), "a link");
        assert!(private_file(&link, Shared::Readers).is_ok());
        with_mode(&file, 0o644);
        assert!(private_file(&link, Shared::Readers).is_err(), "what it leads to");
        assert!(private_file(folder.path(), Shared::Nobody).is_err(), "a folder");
        assert!(private_file(&folder.path().join("none"), Shared::Nobody).is_err());
    }

    #[test]
    fn a_file_of_another_program_that_is_read_only_or_has_two_names_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mcp.json");
        fs::write(&file, "{}").unwrap();
        with_mode(&file, 0o444);
        assert!(replace_file(&file, b"new").unwrap_err().to_string().contains("read-only"));
        with_mode(&file, 0o640);
        let other = folder.path().join("other");
        fs::hard_link(&file, &other).unwrap();
        assert!(replace_file(&file, b"new").unwrap_err().to_string().contains("hard link"));
        fs::remove_file(&other).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"{}");
        replace_file(&file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn what_a_platform_gave_to_a_group_is_taken_back_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("idp.db");
        fs::write(&file, "x").unwrap();
        for (mode, after) in
            [(0o660, 0o600), (0o640, 0o600), (0o600, 0o600), (0o666, 0o666), (0o604, 0o604)]
        {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            take_back(&file).unwrap();
            let found = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, after, "{mode:o}");
        }
        let link = folder.path().join("link.db");
        symlink(&file, &link).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(!is_given_to_group(&link), "whoever made the link may have made it lead anywhere");
        take_back(&folder.path().join("nothing")).unwrap();
    }
}
