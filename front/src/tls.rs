//! TLS and mTLS of listeners: certificates from files, read again when they change, and the names of a peer.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{Error as TlsError, RootCertStore, ServerConfig, ServerConnection};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How often the files are looked at, while peers connect.
const LOOK: Duration = Duration::from_secs(1);

/// Files of PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// The server's chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs clients' certificates; with it, a client needs one.
    pub client_ca: Option<PathBuf>,
}

/// When a file was changed, its length and its inode: of two that were made within a tick of the system's clock, the time is
/// the same.
type Stamp = (SystemTime, u64, u64);

impl Files {
    fn config(&self) -> io::Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(io::Error::other)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::new(default_provider()));
                builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
            }
        };
        let key = PrivateKeyDer::from_pem_reader(File::open(&self.key)?).map_err(io::Error::other)?;
        let mut config = builder
            .with_single_cert(certificates(&self.cert)?, key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// What tells each file from what was in its place before; where one cannot be looked at, it has not changed.
    fn stamps(&self) -> Vec<Option<Stamp>> {
        let paths = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        paths
            .into_iter()
            .flatten()
            .map(|path| {
                let file = fs::metadata(path).ok()?;
                Some((file.modified().ok()?, file.len(), file.ino()))
            })
            .collect()
    }
}

fn certificates(path: &PathBuf) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_reader_iter(File::open(path)?)
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)
}

struct Current {
    acceptor: TlsAcceptor,
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
}

/// Shakes hands with the certificates that are in the files now.
pub struct Reloading {
    files: Files,
    current: Mutex<Current>,
    told: Box<dyn Fn(Result<(), String>) + Send + Sync>,
}

impl Reloading {
    /// `told` hears of each reload, and why one failed: the certificates before it then stay.
    pub fn new(files: Files, told: Box<dyn Fn(Result<(), String>) + Send + Sync>) -> io::Result<Self> {
        let stamps = files.stamps();
        let acceptor = TlsAcceptor::from(Arc::new(files.config()?));
        Ok(Self {
            files,
            current: Mutex::new(Current {
                acceptor,
                stamps,
                looked: Instant::now(),
            }),
            told,
        })
    }

    /// For the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            let stamps = self.files.stamps();
            if stamps != current.stamps && !stamps.contains(&None) {
                current.stamps = stamps;
                match self.files.config() {
                    Ok(config) => {
                        current.acceptor = TlsAcceptor::from(Arc::new(config));
                        (self.told)(Ok(()));
                    }
                    Err(error) => (self.told)(Err(error.to_string())),
                }
            }
        }
        current.acceptor.clone()
    }

    /// Whether clients need a certificate.
    pub fn mutual(&self) -> bool {
        self.files.client_ca.is_some()
    }
}

/// Why a handshake failed, where it did for want of a client's certificate that is good; others come from anybody.
pub fn refusal(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref()? {
        error @ (TlsError::NoCertificatesPresented | TlsError::InvalidCertificate(_)) => Some(error.to_string()),
        _ => None,
    }
}

/// The subject alternative names of the peer's certificate, in its order: DNS names, URIs, addresses.
pub fn names(connection: &ServerConnection) -> Vec<String> {
    let Some(certificate) = connection.peer_certificates().and_then(<[_]>::first) else {
        return Vec::new();
    };
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

fn name(general: &GeneralName<'_>) -> Option<String> {
    match general {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| std::net::Ipv4Addr::from(bytes).to_string());
            let v6 = || <[u8; 16]>::try_from(*bytes).map(|bytes| std::net::Ipv6Addr::from(bytes).to_string());
            v4.or_else(|_| v6()).ok()
        }
        _ => None,
    }
}
