//! Certificates: from files, or one of our own for development.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be used.
    #[error("cannot read the {what} `{path}`: {reason}")]
    File {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Both can be read, and do not go together.
    #[error("the certificate `{certificate}` and the key `{key}` cannot be used together: {reason}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        reason: String,
    },
    /// One of our own cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
    /// It cannot be stored.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where certificate and key are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and those between it and the root.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// TLS with a certificate that can be replaced.
pub struct Tls {
    files: Files,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// TLS with these files.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub fn open(files: Files) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(read(&files)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads the files again, for connections from now on.
    ///
    /// # Errors
    /// Files that cannot be used: what was read before stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = read(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(current).accept(stream).await
    }
}

fn read(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let unreadable = |what, path: &Path, reason: String| TlsError::File { what, path: path.to_owned(), reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| unreadable("certificate", &files.certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(unreadable("certificate", &files.certificate, "there is none in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable("key", &files.key, error.to_string()))?;
    let unusable = |error: rustls::Error| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), reason: error.to_string() };
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider())).with_safe_default_protocol_versions();
    let mut config = builder.map_err(unusable)?.with_no_client_auth().with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A certificate of our own in `folder`, for this machine's own names and these: made where there is none for all of them. Clients that are
/// to trust it name its file, for example in `SSL_CERT_FILE`.
///
/// # Errors
/// It cannot be made or stored.
pub fn self_signed(folder: &Path, more: &[String]) -> Result<Files, TlsError> {
    let files = Files { certificate: folder.join("self-signed.pem"), key: folder.join("self-signed.key") };
    let names_file = folder.join("self-signed.names");
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    names.extend(more.iter().filter(|name| is_nameable(name)).cloned());
    names.sort();
    names.dedup();
    let wanted = names.join("\n");
    if std::fs::read_to_string(&names_file).is_ok_and(|known| known == wanted) && read(&files).is_ok() {
        return Ok(files);
    }
    let make = |error: rcgen::Error| TlsError::Make(error.to_string());
    let key = rcgen::KeyPair::generate().map_err(make)?;
    let mut parameters = rcgen::CertificateParams::new(names).map_err(make)?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "belljar, self-signed");
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = parameters.self_signed(&key).map_err(make)?;
    let failed = |path: &Path, source| TlsError::Write { path: path.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    // The key first: a certificate without it is made again.
    write(&files.key, key.serialize_pem().as_bytes(), 0o600).map_err(|error| failed(&files.key, error))?;
    write(&files.certificate, certificate.pem().as_bytes(), 0o644).map_err(|error| failed(&files.certificate, error))?;
    write(&names_file, wanted.as_bytes(), 0o644).map_err(|error| failed(&names_file, error))?;
    Ok(files)
}

/// Whether a certificate can be for it: no address that stands for all.
fn is_nameable(name: &str) -> bool {
    name.parse::<IpAddr>().map_or_else(|_| !name.is_empty() && !name.contains('*'), |address| !address.is_unspecified())
}

/// Writes a file beside, then puts it in its place.
fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    io::Write::write_all(&mut file, content)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_certificate_is_made_once_and_again_for_more_names() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("tls");
        let files = self_signed(&place, &["0.0.0.0".to_owned()]).unwrap();
        let first = std::fs::read(&files.certificate).unwrap();
        assert_eq!(std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        self_signed(&place, &[]).unwrap();
        assert_eq!(std::fs::read(&files.certificate).unwrap(), first, "0.0.0.0 is nobody's name, so nothing has changed");
        self_signed(&place, &["box.example".to_owned()]).unwrap();
        assert_ne!(std::fs::read(&files.certificate).unwrap(), first);
        Tls::open(files).map(drop).unwrap();
    }

    #[test]
    fn files_that_cannot_be_used_are_named_and_what_was_read_stays() {
        let folder = tempfile::tempdir().unwrap();
        let files = self_signed(folder.path(), &[]).unwrap();
        let other = self_signed(&folder.path().join("other"), &[]).unwrap();
        let message = |result: Result<Arc<Tls>, TlsError>| result.map(drop).unwrap_err().to_string();
        let missing = Files { certificate: folder.path().join("none.pem"), key: files.key.clone() };
        assert!(message(Tls::open(missing)).starts_with("cannot read the certificate"), "no file");
        let empty = Files { certificate: files.key.clone(), key: files.key.clone() };
        assert!(message(Tls::open(empty)).contains("there is none in it"), "no certificate");
        let swapped = Files { certificate: files.certificate.clone(), key: files.certificate.clone() };
        assert!(message(Tls::open(swapped)).starts_with("cannot read the key"), "no key");
        let mixed = Files { certificate: files.certificate.clone(), key: other.key };
        assert!(message(Tls::open(mixed)).contains("cannot be used together"), "another one's key");

        let tls = Tls::open(files.clone()).unwrap();
        let before = Arc::clone(&tls.current.read().unwrap());
        std::fs::write(&files.certificate, "broken").unwrap();
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&before, &tls.current.read().unwrap()), "the old one stays");
        std::fs::remove_file(folder.path().join("self-signed.names")).unwrap();
        self_signed(folder.path(), &[]).unwrap();
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.current.read().unwrap()), "a good one is taken");
    }
}
