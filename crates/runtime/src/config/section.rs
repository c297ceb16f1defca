//! What all sections of the config share: error collection, listen address, TLS termination.

use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Where TLS is terminated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Nowhere: the listener is reachable from this machine only.
    None,
    /// This process, with a certificate chain and its key.
    Own(PathBuf, PathBuf),
    /// At a proxy in front, which cannot be bypassed.
    Proxy,
}

/// Who ends TLS.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum WrittenTls {
    /// A proxy in front: what comes here is plain http, from the addresses in `trusted_proxies`
    /// alone.
    Proxy,
}

/// Collects all errors of a config.
#[derive(Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// All errors, in the order in which they were found.
    pub fn all(&self) -> &[String] {
        &self.0
    }

    pub fn add(&mut self, path: &str, what: &str, hint: &str) {
        self.0.push(format!("{path}: {what}\n  hint: {hint}"));
    }
}

pub fn must_exist(problems: &mut Problems, path: &str, file: &Path) {
    if !file.is_file() {
        let what = format!("there is no file {}", file.display());
        problems.add(
            path,
            &what,
            "paths are relative to the config's folder; `passavant init` makes the files",
        );
    }
}

pub fn address(problems: &mut Problems, path: &str, text: &str) -> Option<SocketAddr> {
    let parsed = text.parse();
    if parsed.is_err() {
        let what = format!("{} is not an address with port", said(text));
        problems.add(path, &what, "for instance 127.0.0.1:7401");
    }
    parsed.ok()
}

/// The address of a listener, and its certificate.
pub fn endpoint(
    problems: &mut Problems,
    path: &str,
    listen: &str,
    (tls, files): (Option<WrittenTls>, (Option<&Path>, Option<&Path>)),
    folder: &Path,
) -> Option<(SocketAddr, Tls)> {
    let listen = address(problems, &format!("{path}.listen"), listen);
    let tls = match files {
        (None, None) if tls == Some(WrittenTls::Proxy) => Tls::Proxy,
        (Some(_), Some(_)) if tls == Some(WrittenTls::Proxy) => {
            let hint = "choose one: either a proxy ends TLS, or this process does";
            problems.add(path, "tls = \"proxy\" and a certificate are both given", hint);
            Tls::Proxy
        }
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (folder.join(certificate), folder.join(key));
            must_exist(problems, &format!("{path}.tls_certificate"), &certificate);
            must_exist(problems, &format!("{path}.tls_key"), &key);
            Tls::Own(certificate, key)
        }
        (None, None) => Tls::None,
        _ => {
            let hint = "give tls_certificate and tls_key, or neither";
            problems.add(path, "one of tls_certificate and tls_key is missing", hint);
            Tls::None
        }
    };
    if let Some(listen) = listen
        && tls == Tls::None
        && !listen.ip().is_loopback()
    {
        let what = format!("`{listen}` would serve plain http to other machines");
        let hint = "give tls_certificate and tls_key; or tls = \"proxy\" and trusted_proxies, where a proxy in front ends \
                    TLS; or listen on 127.0.0.1";
        problems.add(&format!("{path}.listen"), &what, hint);
    }
    Some((listen?, tls))
}

/// A wrong value in quotes, if it cannot contain a password: somebody may have misplaced a database
/// URL.
pub fn said(value: &str) -> String {
    let lower = value.to_ascii_lowercase();
    let rest = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    let rest = rest.unwrap_or(&lower);
    let is_address = value.bytes().all(|b| b.is_ascii_hexdigit() || b":./[]".contains(&b));
    let in_brackets = rest.split_once(']').filter(|_| rest.starts_with('['));
    let colons = in_brackets.map_or(rest, |(_, after)| after).matches(':').count();
    let is_plain = value.len() <= 200
        && !value.contains(|c: char| {
            c == '@' || c == '=' || c == '?' || c.is_whitespace() || c.is_control()
        })
        && !["passw", "pwd", "secret"].iter().any(|word| lower.contains(word))
        && (is_address || (colons <= 1 && !rest.contains("//")));
    if is_plain {
        format!("`{}`", passavant_host::plain(value))
    } else {
        "this (not shown)".to_owned()
    }
}
