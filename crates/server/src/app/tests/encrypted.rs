//! Over TLS.

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::{Files, Tls, self_signed};

async fn served_over_tls(limits: DoorLimits) -> (Served, Files, Arc<Tls>) {
    let (app, folder) = app(Settings { limits, ..Settings::default() });
    let files = self_signed(&folder.path().join("tls"), &[]).unwrap();
    let tls = Tls::open(files.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (serve_here(app, folder, vec![Listener::Tcp(listener, Some(Arc::clone(&tls)))], address), files, tls)
}

fn trusting(files: &Files, protocols: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_trusts_our_own_certificate_is_served() {
    let (served, files, tls) = served_over_tls(DoorLimits::default()).await;
    for name in ["localhost", "127.0.0.1"] {
        let connector = trusting(&files, &["h2", "http/1.1"]);
        let mut stream = connector.connect(ServerName::try_from(name).unwrap(), served.connect().await).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
        stream.write_all(request("GET /healthz", "", "").as_bytes()).await.unwrap();
        assert!(rest(&mut stream).await.ends_with(r#"{"status":"ok"}"#), "{name}");
    }
    let refused = trusting(&files, &["h2"]).connect(ServerName::try_from("localhost").unwrap(), served.connect().await).await;
    assert!(refused.is_err(), "only HTTP/1.1 is spoken");
    let other = trusting(&files, &[]).connect(ServerName::try_from("box.example").unwrap(), served.connect().await).await;
    assert!(other.is_err(), "the name is not in the certificate");

    // Another certificate is taken while it serves: who trusts the first one only is not served by it any more.
    let first = trusting(&files, &[]);
    self_signed(&served.folder.path().join("tls"), &["box.example".to_owned()]).unwrap();
    tls.reload().unwrap();
    assert!(first.connect(ServerName::try_from("localhost").unwrap(), served.connect().await).await.is_err());
    let second = trusting(&files, &[]).connect(ServerName::try_from("box.example").unwrap(), served.connect().await).await;
    assert!(second.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_tls_is_sent_away() {
    let (served, ..) = served_over_tls(DoorLimits { header_timeout: Duration::from_millis(300), ..DoorLimits::default() }).await;
    assert!(!served.ask("GET /healthz", "", "").await.contains("HTTP/1.1"));
    assert_eq!(rest(&mut served.connect().await).await, "", "and who says nothing");
}
