//! How a replica is started.

use std::time::Duration;

use tower_singleflight::Replicas;

/// How a replica is started, in a process of its own or in that of the test.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One address; several, with commas between them, of a cluster.
    pub url: String,
    /// Whether `url` is a cluster's.
    pub is_cluster: bool,
    /// As those of `Replicas`.
    pub namespace: String,
    /// At least 32 bytes.
    pub secret: String,
    /// As that of `Replicas`.
    pub patience: Duration,
    /// As that of `Replicas`.
    pub lease: Duration,
    /// As that of `Replicas`.
    pub down_after: Duration,
    /// As that of `Replicas`.
    pub max_body: usize,
}

// ===== impl Settings =====

impl Settings {
    /// Those of the scenarios: patience 250 ms, `down_after` 300 ms, a lease of 2 s.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            is_cluster: false,
            namespace: "replicas-tests/1".to_owned(),
            secret: "0123456789abcdef0123456789abcdef".to_owned(),
            patience: Duration::from_millis(250),
            lease: Duration::from_secs(2),
            down_after: Duration::from_millis(300),
            max_body: 1 << 20,
        }
    }

    /// For tests in which the store works, however slow the machine is.
    #[must_use]
    pub fn patient(self) -> Self {
        Self {
            patience: Duration::from_secs(20),
            down_after: Duration::from_secs(20),
            lease: Duration::from_secs(20),
            ..self
        }
    }

    /// As a program's arguments.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        let kind = if self.is_cluster { "cluster" } else { "single" };
        let mut args = vec![
            self.url.clone(),
            self.namespace.clone(),
            self.secret.clone(),
        ];
        let times = [self.patience, self.lease, self.down_after];
        args.extend(times.map(|time| time.as_millis().to_string()));
        args.extend([self.max_body.to_string(), kind.to_owned()]);
        args
    }

    /// # Panics
    ///
    /// If the arguments are not those of [`to_args`](Self::to_args).
    #[must_use]
    pub fn from_args(args: &[String]) -> Self {
        let [
            url,
            namespace,
            secret,
            patience,
            lease,
            down_after,
            max_body,
            kind,
        ] = args
        else {
            panic!("url, namespace, secret, patience, lease, down_after, max_body, kind")
        };
        let ms = |text: &String| Duration::from_millis(text.parse().expect("a number"));
        Self {
            url: url.clone(),
            is_cluster: kind == "cluster",
            namespace: namespace.clone(),
            secret: secret.clone(),
            patience: ms(patience),
            lease: ms(lease),
            down_after: ms(down_after),
            max_body: max_body.parse().expect("a number"),
        }
    }

    /// What a layer or group is given.
    ///
    /// # Panics
    ///
    /// If the address is none.
    pub fn replicas(&self) -> Replicas {
        let urls: Vec<_> = self.url.split(',').collect();
        let replicas = match self.is_cluster {
            true => Replicas::redis_cluster(&urls),
            false => Replicas::redis(&self.url),
        };
        replicas
            .expect("an address")
            .namespace(&self.namespace)
            .secret(&self.secret)
            .patience(self.patience)
            .lease(self.lease)
            .down_after(self.down_after)
            .max_body(self.max_body)
    }
}
