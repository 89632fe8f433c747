//! TLS on both sides, with the command itself: the system's roots come from its environment.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer},
};

use super::support::*;

/// A certificate for localhost that is its own root, and a folder for its files.
struct Identity {
    certified: rcgen::CertifiedKey<rcgen::KeyPair>,
    folder: PathBuf,
}

/// The command, ended when this is dropped.
struct Running {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

// ===== impl Identity =====

impl Identity {
    fn new(name: &str) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("cert.pem"), certified.cert.pem()).unwrap();
        std::fs::write(
            folder.join("key.pem"),
            certified.signing_key.serialize_pem(),
        )
        .unwrap();
        Self { certified, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// An origin that answers one request over TLS.
    async fn origin(&self) -> (SocketAddr, JoinHandle<String>) {
        let key = PrivateKeyDer::try_from(self.certified.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let head = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = match acceptor.accept(stream).await {
                Ok(stream) => stream,
                Err(error) => return error.to_string(),
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret";
            stream.write_all(page).await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8(head).unwrap()
        });
        (address, head)
    }

    fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certified.cert.der().clone()).unwrap();
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

// ===== impl Running =====

impl Running {
    fn start(arguments: &[&str], roots: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_reverse_proxy"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("SSL_CERT_FILE", roots)
            .env_remove("SSL_CERT_DIR")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            _child: child,
            lines,
        }
    }

    async fn url(&mut self) -> String {
        let line = self.lines.next_line().await.unwrap().unwrap();
        line.strip_prefix("listening on ").unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_upstream_with_tls_is_asked_by_the_systems_roots() {
    let identity = Identity::new("upstream");
    let (address, head) = identity.origin().await;
    let upstream = format!("https://localhost:{}", address.port());
    let mut proxy = Running::start(&["--upstream", &upstream], &identity.file("cert.pem"));
    let uri = format!("{}/page", proxy.url().await);
    let response = client().get(uri.parse().unwrap()).await.unwrap();
    assert_eq!(text(response).await, (StatusCode::OK, "secret".to_owned()));
    let head = head.await.unwrap();
    assert!(head.starts_with("GET /page HTTP/1.1\r\n"), "{head}");
    let host = format!("host: localhost:{}\r\n", address.port());
    assert!(head.contains(&host), "{head}");
}

#[tokio::test]
async fn an_upstream_whose_certificate_is_not_trusted_is_a_502() {
    let (identity, other) = (Identity::new("untrusted"), Identity::new("trusted"));
    let (address, _) = identity.origin().await;
    let upstream = format!("https://localhost:{}", address.port());
    let mut proxy = Running::start(&["--upstream", &upstream], &other.file("cert.pem"));
    let uri = proxy.url().await;
    let response = client().get(uri.parse().unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn clients_may_connect_with_tls_and_either_version() {
    let identity = Identity::new("listener");
    let origin = World::new(&[]).await;
    let (cert, key) = (identity.file("cert.pem"), identity.file("key.pem"));
    let upstream = format!("http://{}", origin.origin);
    let arguments = [
        "--upstream",
        &upstream,
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
    ];
    let mut proxy = Running::start(&arguments, &cert);
    let url = proxy.url().await.replace("127.0.0.1", "localhost");
    assert!(url.starts_with("https://"), "{url}");
    let version_1 = HttpsConnectorBuilder::new()
        .with_tls_config(identity.client())
        .https_only()
        .enable_http1()
        .build();
    let uri: http::Uri = format!("{url}/page").parse().unwrap();
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(version_1);
    let response = client.get(uri.clone()).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_11);
    let (_, said) = text(response).await;
    assert!(said.contains("\nx-forwarded-proto: https\n"), "{said}");
    assert!(said.contains(";proto=https\n"), "{said}");

    let mut config = identity.client();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", uri.port_u16().unwrap()))
        .await
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(
        (response.status(), response.version()),
        (StatusCode::OK, Version::HTTP_2)
    );
}
