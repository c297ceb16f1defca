//! The config file: as it is written, then as it is used. All errors are reported at once, each
//! with the key's path and a hint.

mod reading;
pub mod section;
mod written;

use crate::gateway::config::GatewayConfig;
use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use passavant_authority::Rates;
use passavant_host as system;
use passavant_host::{Shared, private_file};
use passavant_idp::IdpSettings;
use passavant_proto::{
    formerly,
    identifier::{Issuer, is_loopback},
    jose::jwk::Algorithm,
};
use passavant_ras::RasSettings;
use reading::{misread, put, unquoted, without_passwords};
use section::{Problems, Tls, address, endpoint, must_exist, said};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
};
use url::Url;
pub use written::{LogFormat, WrittenLog, WrittenTelemetry, WrittenUpstream};
use written::{Written, WrittenIdp, WrittenKeys, WrittenListener, WrittenPkcs11};

/// Where a PKCS#11 token is, and which of its keys are ours, by their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Settings {
    /// The module of the token's maker.
    pub module: PathBuf,
    /// The token.
    pub token: String,
    /// The key that seals.
    pub key: String,
    /// Keys that sealed before, and still open.
    pub earlier: Vec<String>,
    /// The file with the PIN.
    pub pin_file: PathBuf,
}

/// What `serve` needs.
#[derive(Debug)]
pub struct Config {
    /// The file with key-encryption keys, if there is one.
    pub key_file: Option<PathBuf>,
    /// The PKCS#11 token with key-encryption keys, which come before those of the file.
    pub pkcs11: Option<Pkcs11Settings>,
    /// Proxies whose statements about a request's origin are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Who may read the files that secrets are in.
    pub secrets: Shared,
    /// Address of the listener for health probes, besides the other listeners.
    pub health: Option<SocketAddr>,
    pub admin: Option<Admin>,
    pub idp: Option<(Listener, IdpSettings)>,
    /// Identity providers at which the company's people sign in, which each start makes what this says.
    pub upstreams: Vec<WrittenUpstream>,
    pub ras: Vec<(String, Listener, RasSettings)>,
    pub gateways: Vec<GatewayConfig>,
    pub extra_roots: Vec<PathBuf>,
    pub log: WrittenLog,
    pub otlp_endpoint: Option<String>,
}

/// The socket at which the local owner administers without a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminSocket {
    /// There is none.
    #[default]
    None,
    /// In the config's folder, named after the config; omitted if it cannot be created.
    Beside(PathBuf),
    /// At the configured path.
    At(PathBuf),
}

impl AdminSocket {
    /// Its path.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Beside(path) | Self::At(path) => Some(path),
        }
    }
}

#[derive(Debug)]
pub struct Admin {
    pub listen: SocketAddr,
    pub secret_file: PathBuf,
    pub socket: AdminSocket,
}

/// The listener of one authorization server.
#[derive(Debug)]
pub struct Listener {
    pub issuer: Issuer,
    pub listen: SocketAddr,
    pub database: String,
    pub algorithm: Algorithm,
    pub tls: Tls,
    /// How long refusals stay in the audit log, in seconds; `None` means for ever.
    pub keep_refused: Option<i64>,
}

/// The path of an error that concerns the whole file.
const WHOLE: &str = "(file)";

impl Config {
    /// Reads and checks a config file.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let before = path.with_file_name(formerly::name(name));
        let path = if before != path && !path.exists() && before.exists() {
            eprintln!("note: {} is read; rename it to {}", before.display(), path.display());
            before.as_path()
        } else {
            path
        };
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("the config {} cannot be read\nhint: go to the folder of `passavant serve` or name the file with --config; `passavant init` writes one", path.display())
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let own = text.parse::<toml::Table>().unwrap_or_default();
        let mounted = own.get("mounted_secrets").and_then(toml::Value::as_bool) == Some(true);
        let set = system::config_overrides(mounted)?;
        let mut config = Self::parse_with(&text, folder, &set)
            .with_context(|| format!("the config {} cannot be used", path.display()))?;
        if let Some(Admin { socket: AdminSocket::Beside(socket), .. }) = &mut config.admin {
            *socket = path.with_extension("sock");
        }
        if databases_in(&own).any(has_password) {
            private_file(path, config.secrets).context("there is a database password in it")?;
        }
        Ok(config)
    }

    #[cfg(test)]
    fn parse(text: &str, folder: &Path) -> Result<Self> {
        Self::parse_with(text, folder, &[])
    }

    /// Parses a config; `set` are keys set by variables (`IDP__LISTEN`, `RAS__0__ISSUER`).
    fn parse_with(text: &str, folder: &Path, set: &[(String, String)]) -> Result<Self> {
        let overridden;
        let text = if set.is_empty() {
            text
        } else {
            let mut table: toml::Table = text.parse().map_err(|error| unquoted(text, &error))?;
            for (name, value) in set {
                put(&mut table, name, value)?;
            }
            overridden = toml::to_string(&table)?;
            overridden.as_str()
        };
        let document = toml::Deserializer::parse(text).map_err(|error| unquoted(text, &error))?;
        let written: Written = serde_path_to_error::deserialize(document).map_err(|error| {
            let hint = if text.contains("[console") {
                "this version runs [idp], [[ras]], [[gateway]] and [admin]"
            } else if set.is_empty() {
                "`passavant init` writes a commented example of every key"
            } else {
                "`passavant init` writes a commented example of every key; keys may be set by PASSAVANT__… in the environment too, \
                 as TOML writes them: lists as '[\"10.0.0.1\"]', a text of digits as '\"2026\"'"
            };
            let (told, rest) = misread(text, error, set);
            let mut wrong: Vec<_> =
                told.into_iter().map(|what| format!("{what}\n  hint: {hint}")).collect();
            // What can be parsed is checked as well. Nothing more is reported about removed parts.
            if let Some(rest) = rest {
                let mut problems = Problems::default();
                let _ = rest.resolve(folder, &mut problems);
                let others = problems.all().iter().filter(|problem| !problem.starts_with(WHOLE));
                wrong.extend(others.map(|problem| without_passwords(problem)));
            }
            match wrong.as_slice() {
                [one] => anyhow::anyhow!("{one}"),
                all => anyhow::anyhow!("{} wrong:\n{}", count(all.len()), all.join("\n")),
            }
        })?;
        let mut problems = Problems::default();
        let config = written.resolve(folder, &mut problems);
        match problems.all() {
            [] => Ok(config),
            problems => {
                let problems: Vec<_> =
                    problems.iter().map(|text| without_passwords(text)).collect();
                bail!("{} wrong:\n{}", count(problems.len()), problems.join("\n"))
            }
        }
    }
}

/// The databases in the config itself, even if the environment sets others.
fn databases_in(table: &toml::Table) -> impl Iterator<Item = &str> {
    let ras = table.get("ras").and_then(toml::Value::as_array).into_iter().flatten();
    let databases = table.get("idp").into_iter().chain(ras).filter_map(|role| role.get("database"));
    databases.filter_map(toml::Value::as_str)
}

fn has_password(database: &str) -> bool {
    Url::parse(database).is_ok_and(|url| {
        url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password")
    })
}

fn count(problems: usize) -> String {
    if problems == 1 { "one thing is".to_owned() } else { format!("{problems} things are") }
}

impl Written {
    fn resolve(self, folder: &Path, problems: &mut Problems) -> Config {
        let at = |path: PathBuf| folder.join(path);
        let trusted_proxies = networks(problems, &self.trusted_proxies);
        let secrets = if self.mounted_secrets { Shared::Mounted } else { Shared::Group };
        let health =
            self.health.and_then(|health| address(problems, "health.listen", &health.listen));
        let (key_file, pkcs11) = of_keys(self.keys, folder, problems);
        let admin = self.admin.and_then(|admin| {
            let secret_file = at(admin.secret_file);
            must_exist(problems, "admin.secret_file", &secret_file);
            let listen = address(problems, "admin.listen", &admin.listen)?;
            if !listen.ip().is_loopback() {
                problems.add(
                    "admin.listen",
                    &format!("`{listen}` is not a loopback address"),
                    "use 127.0.0.1; reach it from elsewhere through an SSH tunnel",
                );
            }
            let socket = match admin.socket {
                Some(none) if none.as_os_str().is_empty() => AdminSocket::None,
                Some(socket) => AdminSocket::At(at(socket)),
                None => AdminSocket::Beside(PathBuf::new()),
            };
            Some(Admin { listen, secret_file, socket })
        });
        let mut upstreams = Vec::new();
        let idp = self.idp.and_then(|mut w| {
            upstreams = of_upstreams(std::mem::take(&mut w.upstream), folder, problems);
            of_idp(w, folder, problems)
        });
        let mut ras = Vec::new();
        for (i, w) in self.ras.into_iter().enumerate() {
            let path = format!("ras[{i}]");
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
            if w.name.is_empty() || !w.name.bytes().all(plain) {
                let what = format!("{} cannot name a RAS", said(&w.name));
                problems.add(&format!("{path}.name"), &what, "use letters, digits, - and _");
            }
            let default = RasSettings::default();
            let hours =
                |hours: Option<u32>, default| hours.map_or(default, |h| i64::from(h) * 3600);
            let settings = RasSettings {
                rates: rates(
                    w.failures_per_minute,
                    w.grants_per_minute,
                    w.introspections_per_minute,
                ),
                registration: w.registration.unwrap_or(default.registration),
                client_documents: w.client_documents.unwrap_or(default.client_documents),
                refresh_idle: hours(w.refresh_idle_hours, default.refresh_idle),
                refresh_absolute: hours(w.refresh_hours, default.refresh_absolute),
            };
            let written = WrittenListener {
                issuer: w.issuer,
                listen: w.listen,
                database: w.database,
                algorithm: w.algorithm,
                tls: w.tls,
                tls_certificate: w.tls_certificate,
                tls_key: w.tls_key,
                keep_refused_days: w.keep_refused_days,
            };
            if let Some(listener) = listener(problems, &path, &written, folder) {
                ras.push((w.name, listener, settings));
            }
        }
        let mut gateways = Vec::new();
        for (i, written) in self.gateway.into_iter().enumerate() {
            gateways.extend(written.resolve(&format!("gateway[{i}]"), folder, problems));
        }
        let otlp_endpoint = self.telemetry.otlp_endpoint;
        if otlp_endpoint.as_ref().is_some_and(|url| Url::parse(url).is_err()) {
            let hint = "use the collector's base URL, for instance http://127.0.0.1:4318";
            problems.add("telemetry.otlp_endpoint", "this is not a URL", hint);
        }
        let config = Config {
            key_file,
            pkcs11,
            trusted_proxies,
            secrets,
            health,
            admin,
            idp,
            upstreams,
            ras,
            gateways,
            extra_roots: self.outbound.extra_roots.into_iter().map(at).collect(),
            log: self.log,
            otlp_endpoint,
        };
        config.check_together(problems);
        config
    }
}

impl Config {
    /// Checks combinations of keys that are valid individually.
    fn check_together(&self, problems: &mut Problems) {
        if self.idp.is_none() && self.ras.is_empty() && self.gateways.is_empty() {
            let hint = "write an [idp] table, a [[ras]] table for each authorization server, or a \
                        [[gateway]] table";
            problems.add(WHOLE, "there is nothing to serve", hint);
        }
        let proxied = self.idp.iter().map(|(place, _)| &place.tls);
        let proxied = proxied.chain(self.ras.iter().map(|(_, place, _)| &place.tls));
        let mut proxied = proxied.chain(self.gateways.iter().map(|gateway| &gateway.tls));
        if proxied.any(|tls| *tls == Tls::Proxy) && self.trusted_proxies.is_empty() {
            let hint = "list the addresses that the proxy connects from, for instance trusted_proxies = [\"10.0.0.0/8\"]";
            problems.add(
                "trusted_proxies",
                "tls = \"proxy\" says that a proxy ends TLS, but trusted_proxies names none",
                hint,
            );
        }
        for (i, root) in self.extra_roots.iter().enumerate() {
            must_exist(problems, &format!("outbound.extra_roots[{i}]"), root);
        }
        let listeners = self.idp.iter().map(|(listener, _)| ("idp".to_owned(), listener));
        let ras = self.ras.iter().enumerate();
        let listeners = listeners.chain(ras.map(|(i, (_, l, _))| (format!("ras[{i}]"), l)));
        let (mut issuers, mut addresses, mut databases) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (path, listener) in listeners {
            if !issuers.insert(listener.issuer.as_str().trim_end_matches('/').to_owned()) {
                let hint = "every authorization server has an issuer of its own";
                problems.add(&format!("{path}.issuer"), "another role has this issuer", hint);
            }
            if listener.listen.port() != 0 && !addresses.insert(listener.listen) {
                let hint = "give each role a port of its own";
                problems.add(&format!("{path}.listen"), "another role has this address", hint);
            }
            if !databases.insert(listener.database.clone()) {
                let hint = "give each role a database of its own";
                problems.add(&format!("{path}.database"), "another role has this database", hint);
            }
        }
        self.check_gateways(problems);
        let mut names = BTreeSet::new();
        for (i, (name, ..)) in self.ras.iter().enumerate() {
            if !names.insert(name) {
                let hint = "choose another name: `passavant admin --ras NAME` must select one";
                problems.add(&format!("ras[{i}].name"), "another RAS has this name", hint);
            }
        }
    }
}

impl Config {
    /// A gateway may share the listener of one RAS; nothing else may share a listener.
    fn check_gateways(&self, problems: &mut Problems) {
        let (mut addresses, mut folders, mut names) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (i, gateway) in self.gateways.iter().enumerate() {
            let path = format!("gateway[{i}]");
            if gateway.listen.port() != 0 && !addresses.insert(gateway.listen) {
                let hint = "give each gateway a port of its own, or write its routes into one";
                problems.add(&format!("{path}.listen"), "another gateway has this address", hint);
            }
            if !folders.insert(&gateway.folder) {
                let hint = "give each gateway a folder of its own";
                problems.add(&format!("{path}.folder"), "another gateway has this folder", hint);
            }
            if !names.insert(&gateway.name) {
                let hint = "give each gateway a name of its own";
                problems.add(&format!("{path}.name"), "another gateway has this name", hint);
            }
            if self
                .idp
                .as_ref()
                .is_some_and(|(idp, _)| idp.listen == gateway.listen && gateway.listen.port() != 0)
            {
                let hint = "a gateway may share the address of a RAS, not of the identity provider";
                problems.add(
                    &format!("{path}.listen"),
                    "the identity provider has this address",
                    hint,
                );
            }
            let sharing = self.ras.iter().filter(|(_, ras, _)| ras.listen == gateway.listen);
            if sharing.clone().any(|(_, ras, _)| ras.tls != gateway.tls) {
                let hint = "one address has one certificate: give the same for both";
                problems.add(&path, "the RAS at this address has another certificate", hint);
            }
        }
    }
}

fn of_idp(
    w: WrittenIdp,
    folder: &Path,
    problems: &mut Problems,
) -> Option<(Listener, IdpSettings)> {
    let settings = idp_settings(&w);
    let written = WrittenListener {
        issuer: w.issuer,
        listen: w.listen,
        database: w.database,
        algorithm: w.algorithm,
        tls: w.tls,
        tls_certificate: w.tls_certificate,
        tls_key: w.tls_key,
        keep_refused_days: w.keep_refused_days,
    };
    Some((listener(problems, "idp", &written, folder)?, settings))
}

/// Where the key-encryption keys are.
fn of_keys(
    written: WrittenKeys,
    folder: &Path,
    problems: &mut Problems,
) -> (Option<PathBuf>, Option<Pkcs11Settings>) {
    let at = |path: PathBuf| folder.join(path);
    let key_file = written.file.map(&at);
    if let Some(key_file) = &key_file {
        must_exist(problems, "keys.file", key_file);
    }
    let pkcs11 = written.pkcs11.map(|written| {
        let WrittenPkcs11 { module, token, key, earlier, pin_file } = written;
        let (module, pin_file) = (at(module), at(pin_file));
        must_exist(problems, "keys.pkcs11.module", &module);
        must_exist(problems, "keys.pkcs11.pin_file", &pin_file);
        if !cfg!(feature = "pkcs11") {
            problems.add(
                "keys.pkcs11",
                "this build knows no PKCS#11",
                "build it with `--features pkcs11`",
            );
        }
        if earlier.contains(&key) {
            problems.add(
                "keys.pkcs11.earlier",
                &format!("`{key}` is the key that seals"),
                "name the keys that sealed before it",
            );
        }
        Pkcs11Settings { module, token, key, earlier, pin_file }
    });
    if key_file.is_none() && pkcs11.is_none() {
        problems.add(
            "keys.file",
            "it is missing",
            "name the key file that `passavant init` made, or a token (`keys.pkcs11`)",
        );
    }
    (key_file, pkcs11)
}

/// Upstreams, with the places of their files.
fn of_upstreams(
    written: Vec<WrittenUpstream>,
    folder: &Path,
    problems: &mut Problems,
) -> Vec<WrittenUpstream> {
    let mut names = BTreeSet::new();
    let mut all = Vec::new();
    for (i, mut upstream) in written.into_iter().enumerate() {
        let path = format!("idp.upstream[{i}]");
        if !names.insert(upstream.name.clone()) {
            problems.add(
                &format!("{path}.name"),
                "another upstream has this name",
                "give it another",
            );
        }
        for (member, file) in [
            ("metadata_file", &mut upstream.metadata_file),
            ("client_secret_file", &mut upstream.client_secret_file),
        ] {
            if let Some(file) = file {
                *file = folder.join(&*file);
                must_exist(problems, &format!("{path}.{member}"), file);
            }
        }
        all.push(upstream);
    }
    all
}

fn idp_settings(written: &WrittenIdp) -> IdpSettings {
    let default = IdpSettings::default();
    IdpSettings {
        name: written.name.clone().unwrap_or(default.name),
        tenant: written.tenant.clone(),
        session_lifetime: written
            .session_hours
            .map_or(default.session_lifetime, |hours| i64::from(hours) * 3600),
        upstream_check: written
            .upstream_check_minutes
            .map_or(default.upstream_check, |minutes| i64::from(minutes.get()) * 60),
        upstream_grace: written
            .upstream_grace_minutes
            .map_or(default.upstream_grace, |minutes| i64::from(minutes) * 60),
        allow_public_exchange: written.allow_public_exchange.unwrap_or(false),
        enrolment: written.enrolment.unwrap_or(default.enrolment),
        device_authorization: written.device_authorization.unwrap_or(default.device_authorization),
        show_refused: written.show_refused.unwrap_or(default.show_refused),
        rates: rates(written.failures_per_minute, written.grants_per_minute, None),
        ..default
    }
}

fn rates(
    failures: Option<NonZeroU32>,
    grants: Option<NonZeroU32>,
    introspections: Option<NonZeroU32>,
) -> Rates {
    let default = Rates::default();
    Rates {
        failures: failures.unwrap_or(default.failures),
        grants: grants.unwrap_or(default.grants),
        introspections: introspections.unwrap_or(default.introspections),
    }
}

fn listener(
    problems: &mut Problems,
    path: &str,
    written: &WrittenListener,
    folder: &Path,
) -> Option<Listener> {
    let WrittenListener { issuer: text, database, .. } = written;
    let issuer = Issuer::parse(text);
    if let Err(error) = &issuer {
        let hint = "give the URL by which other parties know this server";
        problems.add(&format!("{path}.issuer"), &format!("{} {error}", said(text)), hint);
    }
    if text.ends_with('/') {
        let hint = "leave the slash out: issuers are compared byte for byte, and most parties \
                    write them without";
        problems.add(&format!("{path}.issuer"), "it ends with a slash", hint);
    }
    let files = (written.tls_certificate.as_deref(), written.tls_key.as_deref());
    let place = endpoint(problems, path, &written.listen, (written.tls, files), folder);
    let tls = place.as_ref().map_or(Tls::None, |(_, tls)| tls.clone());
    if let (Ok(issuer), true) = (&issuer, tls != Tls::None)
        && Url::parse(issuer.as_str()).is_ok_and(|url| is_loopback(&url) && url.scheme() == "http")
    {
        let hint = "write https:// in the issuer, or leave the certificate out";
        problems.add(&format!("{path}.issuer"), "it says http, but TLS is on", hint);
    }
    if let Some(Algorithm::PS256) = written.algorithm {
        let hint = "sign with ES256, EdDSA or RS256; PS256 is only verified";
        problems.add(
            &format!("{path}.algorithm"),
            "this algorithm cannot be used for signing",
            hint,
        );
    }
    let database = match database.strip_prefix("sqlite:") {
        Some(file) => format!("sqlite:{}", folder.join(file).display()),
        None => database.clone(),
    };
    if let Err(error) = passavant_store::check_transport(&database) {
        // Never print the URL itself: it may contain a password.
        let hint = "use sqlite:FILE, or postgres://USER@HOST/DATABASE?sslmode=verify-full for a server that is not \
                    on this machine";
        problems.add(&format!("{path}.database"), &error.to_string(), hint);
    }
    let algorithm = written.algorithm.unwrap_or_default();
    let keep_refused = written.keep_refused_days.map(|days| i64::from(days.get()) * 86_400);
    let (issuer, listen) = (issuer.ok()?, place?.0);
    Some(Listener { issuer, listen, database, algorithm, tls, keep_refused })
}

/// Addresses and networks of the proxies.
fn networks(problems: &mut Problems, written: &[String]) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (i, text) in written.iter().enumerate() {
        let one = text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
        let network = one.or_else(|_| text.parse::<IpNet>().map(|network| network.trunc()));
        match network {
            Ok(network) if network.prefix_len() > 0 => networks.push(network),
            Ok(_) => {
                let hint =
                    "every caller could claim any address; name only the proxy's own network";
                problems.add(
                    &format!("trusted_proxies[{i}]"),
                    &format!("{} is everybody", said(text)),
                    hint,
                );
            }
            Err(_) => {
                let what = format!("{} is neither an address nor a network", said(text));
                problems.add(
                    &format!("trusted_proxies[{i}]"),
                    &what,
                    "for instance 127.0.0.1 or 10.0.0.0/8",
                );
            }
        }
    }
    networks
}

/// The commented config that `passavant init` writes.
pub const EXAMPLE: &str = include_str!("example.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_reported_at_once_with_its_path() {
        let text = r#"
            [keys]
            file = "missing.key"
            [admin]
            listen = "0.0.0.0:1"
            secret_file = "missing.secret"
            [idp]
            issuer = "http://idp.example/"
            listen = "nowhere"
            database = "mysql://x"
            [[ras]]
            name = "a b"
            issuer = "https://ras.example"
            listen = "0.0.0.0:2"
            database = "sqlite:x.db"
        "#;
        let error = Config::parse(text, Path::new("/nonexistent")).unwrap_err().to_string();
        for path in [
            "keys.file",
            "admin.listen",
            "admin.secret_file",
            "idp.issuer",
            "idp.listen",
            "idp.database",
            "ras[0].name",
            "ras[0].listen",
        ] {
            assert!(error.contains(&format!("{path}:")), "{path} is not in:\n{error}");
        }
        assert!(error.matches("hint:").count() >= 8, "{error}");
    }

    #[test]
    fn a_config_of_an_earlier_build_is_read_where_there_is_none_of_now() {
        let folder = tempfile::tempdir().unwrap();
        let now = folder.path().join("passavant.toml");
        let before = folder.path().join(formerly::name("passavant.toml"));
        let keys = ["passavant.key", "passavant.admin-secret"].map(formerly::name);
        for file in &keys {
            system::write_private(&folder.path().join(file), b"x", true).unwrap();
        }
        let mut text = EXAMPLE.to_owned();
        for file in ["passavant.key", "passavant.admin-secret"] {
            text = text.replace(file, &formerly::name(file));
        }
        system::write_private(&before, text.as_bytes(), true).unwrap();
        assert!(Config::read(&now).unwrap().admin.is_some());
        system::write_private(&now, b"nonsense", true).unwrap();
        assert!(Config::read(&now).is_err());
    }

    #[test]
    fn every_key_can_be_set_from_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["passavant.key", "passavant.admin-secret"] {
            std::fs::write(folder.path().join(file), "x").unwrap();
        }
        let set = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> =
                pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            Config::parse_with(EXAMPLE, folder.path(), &pairs)
        };
        let config = set(&[
            ("IDP__LISTEN", "0.0.0.0:7401"),
            ("IDP__ISSUER", "https://idp.example"),
            ("IDP__TLS", "proxy"),
            ("TRUSTED_PROXIES", "[\"10.0.0.0/8\", \"::1\"]"),
            ("RAS__0__ISSUER", "https://ras.example"),
            ("RAS__1__NAME", "second"),
            ("RAS__1__ISSUER", "https://second.example"),
            ("RAS__1__LISTEN", "127.0.0.1:7409"),
            ("RAS__1__DATABASE", "sqlite:second.db"),
            ("IDP__SESSION_HOURS", "3"),
            ("HEALTH__LISTEN", "0.0.0.0:9000"),
        ])
        .unwrap();
        let (idp, settings) = config.idp.as_ref().unwrap();
        assert_eq!((idp.listen.to_string().as_str(), &idp.tls), ("0.0.0.0:7401", &Tls::Proxy));
        assert_eq!(settings.session_lifetime, 3 * 3600);
        assert_eq!(config.ras.len(), 2);
        assert_eq!(config.ras[0].1.issuer.as_str(), "https://ras.example");
        assert_eq!((config.trusted_proxies.len(), config.health.unwrap().port()), (2, 9000));
        let deep = format!("{}X", "A__".repeat(20_000));
        for (name, value, said) in [
            ("IDP__ISUER", "x", "isuer"),
            ("RAS__7__NAME", "x", "RAS__7__NAME"),
            ("IDP____ISSUER", "x", "is not a key of the config"),
            (deep.as_str(), "x", "is not a key of the config"),
            ("IDP__LISTEN", "0.0.0.0:1", "tls = \"proxy\""),
            ("TRUSTED_PROXIES", "[\"0.0.0.0/0\"]", "everybody"),
            ("TRUSTED_PROXIES", "[\"10.0.0.0/99\"]", "network"),
        ] {
            let error = format!("{:#}", set(&[(name, value)]).unwrap_err());
            assert!(error.contains(said), "{name}: {error}");
        }
        // An error in a variable is reported with the variable's name: it is on no line of the
        // file.
        for name in ["IDP__ISUER", "IDP__SESSION_HOURS", "RAS__0__LISTN"] {
            let error = format!("{:#}", set(&[(name, "x")]).unwrap_err());
            assert!(error.contains(&format!("set by PASSAVANT__{name}")), "{name}: {error}");
            assert!(!error.contains("line "), "{name}: {error}");
        }
        let error = set(&[("IDP__TLS", "proxy"), ("IDP__LISTEN", "0.0.0.0:1")]).unwrap_err();
        assert!(format!("{error:#}").contains("trusted_proxies"), "a proxy has to be named");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_path() {
        let text = "[keys]\nfile = \"k\"\n[idp]\nissuer = \"https://a\"\nlisten = \"127.0.0.1:1\"\n\
                    database = \"sqlite:x\"\nisuer = \"typo\"\n";
        let error = Config::parse(text, Path::new(".")).unwrap_err().to_string();
        assert!(error.contains("isuer"), "{error}");
    }

    #[test]
    fn keys_that_are_unknown_or_hold_something_else_are_reported_together() {
        let text = "health = 5\ntrusted_proxies = [1, \"::1\", 2]\nmystery = true\n[keys]\nfile = \"k\"\n\
                    [idp]\nissuer = \"https://a\"\nlisten = \"127.0.0.1:1\"\ndatabase = \"sqlite:x\"\n\
                    session_hours = \"three\"\nisuer = \"typo\"\n[[ras]]\nname = \"a\"\nlisten = false\n";
        let error = Config::parse(text, Path::new(".")).unwrap_err().to_string();
        for path in [
            "health",
            "trusted_proxies[0]",
            "mystery",
            "idp.session_hours",
            "isuer",
            "ras[0].listen",
        ] {
            assert!(error.contains(path), "{path} is not in:\n{error}");
        }
        assert!(error.contains("things are wrong"), "{error}");
        assert!(!error.contains("missing"), "what was taken out is not missed: {error}");
        assert!(!error.contains("nothing to serve"), "{error}");
        for internal in ["struct ", "Written", "u32"] {
            assert!(!error.contains(internal), "{internal} is the code's: {error}");
        }
        // Reported together with keys that can be parsed but have wrong values.
        let text = "mystery = 1\n[keys]\nfile = \"missing.key\"\n[idp]\nissuer = \"http://idp.example/\"\n\
                    listen = \"nowhere\"\ndatabase = \"mysql:x\"\nsession_hours = \"three\"\n";
        let error = Config::parse(text, Path::new("/nonexistent")).unwrap_err().to_string();
        for path in [
            "mystery",
            "keys.file",
            "idp.issuer",
            "idp.listen",
            "idp.database",
            "idp.session_hours",
        ] {
            assert!(error.contains(&format!("{path}:")), "{path} is not in:\n{error}");
        }
        // Missing keys are reported if nothing else is wrong.
        let error = Config::parse("[keys]\n", Path::new(".")).unwrap_err().to_string();
        assert!(error.contains("keys.file: it is missing"), "{error}");
    }

    #[test]
    fn a_mistake_never_prints_what_is_written_beside_it() {
        let database = "postgres://passavant:hunter2@db.example/passavant";
        let lines = [
            format!("database = \"{database}"),
            format!("database = \"{database}\" x"),
            format!("database = {database}"),
            format!("databse = \"{database}\""),
            format!("database = [\"{database}\"]"),
            format!("database = \"{database}\"\ndatabase = \"{database}\""),
            format!("database = \"{database}\"\nlisten = 5"),
            "database = \"postgres://passavant:hunter2@[::bad/passavant\"".to_owned(),
            "database = \"postgres://passavant:hunter2@db.example:99999/passavant\"".to_owned(),
            "database = \"postgresql+x://passavant:hunter2@db.example/passavant\"".to_owned(),
            format!("database = \"{database}?sslmode=prefer\""),
            "database = \"postgres://c@localhost/c?sslpassword=hunter2\"".to_owned(),
            "database = \"postgres://c@localhost/c?passwd=hunter2\"".to_owned(),
            "database = \"postgres://c@localhost/c?Password=hunter2\"".to_owned(),
            "database = \"host=db user=u password=hunter2\"".to_owned(),
            format!("session_hours = \"{database}\""),
            format!("algorithm = \"{database}\""),
            format!("listen = \"{database}\""),
            format!("tls_certificate = \"{database}\"\ntls_key = \"{database}\""),
            format!("\"{database}\" = 1"),
            "\"hunter2 passavant\" = 1".to_owned(),
            format!("tls = \"{database}\""),
            "session_hours = \"a`, expected hunter2\"".to_owned(),
            "algorithm = \"a`, expected hunter2\"".to_owned(),
        ];
        // Database URLs, and lines of password files, in any spelling and at any place.
        let spelled = [
            "postgres://passavant:hun hunter2@db.example/passavant",
            "passavant:hunter2@db.example/passavant",
            "postgres:passavant:hunter2@db.example/passavant",
            "host = db password = hunter2",
            "password: hunter2",
            "db.example:5432:passavant:passavant:hunter2",
            "postgres://db.example/passavant?user=c&key=hunter2",
        ];
        let places = [
            "listen",
            "issuer",
            "algorithm",
            "tls",
            "session_hours",
            "name",
            "tls_key",
            "database",
        ];
        let placed = spelled.iter().flat_map(|text| {
            let keys = places.iter().map(move |key| format!("{key} = \"{text}\""));
            keys.chain([format!("\"{text}\" = 1"), format!("listen = [\"{text}\"]")])
        });
        let lines: Vec<String> = lines.into_iter().chain(placed).collect();
        for line in lines {
            let text = format!("[keys]\nfile = \"k\"\n[idp]\nissuer = \"https://a\"\n{line}\n");
            let error = Config::parse(&text, Path::new(".")).unwrap_err();
            let said = format!("{error:#} {error:?}");
            assert!(!said.contains("hunter2"), "{line}\n{said}");
            assert!(said.contains("idp") || said.contains("line "), "{line}\n{said}");
        }
    }

    #[test]
    fn a_database_elsewhere_is_spoken_to_by_verified_tls_alone() {
        for (url, fine) in [
            ("postgres://c@localhost/c", true),
            ("postgres://c@127.0.0.1/c", true),
            ("postgres://c@%2Fvar%2Frun%2Fpostgresql/c", true),
            ("postgres://c@db.example/c", false),
            ("postgres://c@db.example/c?sslmode=require", false),
            ("postgres://c@db.example/c?sslmode=verify-ca", false),
            ("postgres://c@10.0.0.1/c?sslmode=disable", false),
            ("postgres://c@db.example/c?sslmode=verify-full", true),
        ] {
            assert_eq!(passavant_store::check_transport(url).is_ok(), fine, "{url}");
        }
    }

    #[test]
    fn the_example_parses_once_its_files_are_there() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["passavant.key", "passavant.admin-secret"] {
            std::fs::write(folder.path().join(file), "x").unwrap();
        }
        let config = Config::parse(EXAMPLE, folder.path()).unwrap();
        assert!(config.idp.is_some() && config.ras.len() == 1);
    }
}
