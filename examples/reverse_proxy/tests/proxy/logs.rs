//! What the command logs.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

use super::support::*;

struct Running {
    _child: Child,
    url: String,
    log: Lines<BufReader<ChildStderr>>,
}

// ===== impl Running =====

impl Running {
    async fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_reverse_proxy"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        Self {
            url: line.strip_prefix("listening on ").unwrap().to_owned(),
            log: BufReader::new(child.stderr.take().unwrap()).lines(),
            _child: child,
        }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let uri = format!("{}{path}", self.url).parse().unwrap();
        text(client().get(uri).await.unwrap()).await
    }

    async fn line(&mut self) -> String {
        self.log.next_line().await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_failure_is_one_line_with_its_cause_and_no_query() {
    let (_held, address) = nobody();
    let upstream = format!("http://{address}");
    let mut proxy = Running::start(&["--upstream", &upstream], &[]).await;
    for path in ["/first?token=secret", "/second"] {
        assert_eq!(proxy.get(path).await.0, StatusCode::BAD_GATEWAY);
    }
    let first = proxy.line().await;
    for part in [
        " WARN ",
        "can't be reached",
        &upstream,
        "path=\"/first\"",
        "refused",
        "status=502",
    ] {
        assert!(first.contains(part), "{part}: {first}");
    }
    assert!(!first.contains("secret"), "{first}");
    let second = proxy.line().await;
    assert!(second.contains("path=\"/second\""), "{second}");
}

#[tokio::test]
async fn an_access_log_has_a_line_for_each_request() {
    let origin = World::new(&[]).await;
    let upstream = format!("http://{}", origin.origin);
    let arguments = ["--upstream", &upstream, "--access-log"];
    let mut proxy = Running::start(&arguments, &[("RUST_LOG", "error")]).await;
    let (_, body) = proxy.get("/page?token=secret").await;
    let line = proxy.line().await;
    let bytes = format!("bytes={}", body.len());
    for part in [
        "client=\"127.0.0.1\"",
        "method=GET",
        "path=\"/page\"",
        "status=200",
        &bytes,
        "role=\"leader\"",
        "whole=true",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains("secret"), "{line}");
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_said_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (arguments, environment, expected) in [
        (
            &["--listen", &*taken][..],
            &[][..],
            &*format!("reverse_proxy: can't listen on {taken}: "),
        ),
        (
            &["--tls-cert", "/none", "--tls-key", "/none"],
            &[],
            "reverse_proxy: /none: ",
        ),
        (
            &[],
            &[("RUST_LOG", "a=b=c")],
            "reverse_proxy: RUST_LOG \"a=b=c\": ",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_reverse_proxy"))
            .args(["--upstream", "http://127.0.0.1:1"])
            .args(arguments)
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.starts_with(expected), "{words}");
        assert_eq!(words.lines().count(), 1, "{words}");
    }
}
