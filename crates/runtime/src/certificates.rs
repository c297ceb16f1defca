//! Certificates of listeners: read from their files, and read again when they change, without
//! dropping a connection.

use anyhow::{Context as _, Result};
use passavant_host::{Shared, private_file};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        server::{ClientHello, ResolvesServerCert},
        sign::{CertifiedKey, SingleCertAndKey},
    },
};
use tokio_util::sync::CancellationToken;

/// A certificate chain and its key; an error if they do not match.
pub fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey> {
    let file = File::open(certificate)
        .with_context(|| format!("{} cannot be read", certificate.display()))?;
    let chain = CertificateDer::pem_reader_iter(file)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .with_context(|| format!("{} is not a PEM certificate", certificate.display()))?;
    let private = PrivateKeyDer::from_pem_reader(private_file(key, Shared::Readers)?)
        .with_context(|| format!("{} is not a PEM private key", key.display()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, private, &provider).with_context(|| {
        format!(
            "the key {} does not match the certificate {}\n\
             hint: give the key that the certificate was made for",
            key.display(),
            certificate.display()
        )
    })
}

/// The certificate of a listener, as last read from its files.
#[derive(Debug)]
struct Current {
    certificate: PathBuf,
    key: PathBuf,
    held: RwLock<Arc<CertifiedKey>>,
    /// The modification times of the files when they were last checked.
    seen: Mutex<Option<(SystemTime, SystemTime)>>,
}

impl Current {
    fn changed(&self) -> Option<(SystemTime, SystemTime)> {
        let at = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        Some((at(&self.certificate)?, at(&self.key)?))
    }

    /// Reads the files again if they have changed, or unconditionally. If they cannot be read, the
    /// current certificate stays.
    fn renew(&self, in_any_case: bool) {
        let changed = self.changed();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !in_any_case && (changed.is_none() || *seen == changed) {
            return;
        }
        *seen = changed;
        let file = self.certificate.display();
        match certified(&self.certificate, &self.key) {
            Ok(fresh) => {
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                tracing::info!(%file, "the new certificate is used from now on");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(%file, error, "the new certificate cannot be used; the previous one is still served");
            }
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// All certificates of this process, which are renewed while it runs.
pub struct Certificates {
    all: Mutex<Vec<Arc<Current>>>,
    /// Listened for from the beginning: a listener may serve before the watch begins.
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            all: Mutex::default(),
            #[cfg(unix)]
            hangup: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        }
    }
}

/// How often the files are checked.
const RENEWAL: Duration = Duration::from_mins(1);

impl Certificates {
    pub fn acceptor(&self, certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
        let current = Current {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            held: RwLock::new(Arc::new(certified(certificate, key)?)),
            seen: Mutex::default(),
        };
        *current.seen.lock().unwrap_or_else(PoisonError::into_inner) = current.changed();
        let current = Arc::new(current);
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&current));
        acceptor(current)
    }

    /// Reads them again when they change, and all of them at SIGHUP, which does not end the
    /// process.
    pub fn watch(self, stop: &CancellationToken) {
        let all = self.all.into_inner().unwrap_or_else(PoisonError::into_inner);
        #[cfg(unix)]
        let mut hangup = self.hangup;
        let stop = stop.clone();
        tokio::spawn(async move {
            loop {
                #[cfg(unix)]
                let asked = async {
                    match &mut hangup {
                        Some(hangup) => drop(hangup.recv().await),
                        None => std::future::pending().await,
                    }
                };
                #[cfg(not(unix))]
                let asked = std::future::pending::<()>();
                let in_any_case = tokio::select! {
                    () = stop.cancelled() => return,
                    () = asked => true,
                    () = tokio::time::sleep(RENEWAL) => false,
                };
                let all = all.clone();
                // File access may be slow.
                let renewal = move || all.iter().for_each(|current| current.renew(in_any_case));
                let _ = tokio::task::spawn_blocking(renewal).await;
            }
        });
    }
}

/// TLS 1.2 and 1.3 with aws-lc, with one fixed certificate.
pub fn tls(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = CertifiedKey::from_der(certificates, key, &provider)?;
    acceptor(Arc::new(SingleCertAndKey::from(key)))
}

fn acceptor(certificate: Arc<dyn ResolvesServerCert>) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
