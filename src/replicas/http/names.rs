//! Digests of requests and of variants, the same at all replicas.

use http::Method;

use super::fields::joined;
use crate::{
    replicas::{Digest, KeyBytes, ReplicaClient},
    rules::Variant,
};

/// The name of a key's flights; `write` writes the key's parts. GET and HEAD have different names.
pub(crate) fn request_name(
    client: &ReplicaClient,
    method: &Method,
    write: impl FnOnce(&mut KeyBytes),
) -> Digest {
    client.keys.digest(|bytes| {
        bytes.part(b"request");
        bytes.part(method.as_str().as_bytes());
        write(bytes);
    })
}

/// The name of the flights for one variant of the key `request`: requests with the same values meet there.
pub(crate) fn variant_name(client: &ReplicaClient, request: Digest, variant: &Variant) -> Digest {
    client.keys.digest(|bytes| {
        bytes.part(b"variant");
        bytes.part(&request.0.to_be_bytes());
        write_variant(variant, bytes);
    })
}

/// The digest of a request's values in the fields that a response varies by, so that others can compare theirs.
pub(crate) fn variant_values(client: &ReplicaClient, variant: &Variant) -> Digest {
    client.keys.digest(|bytes| {
        bytes.part(b"values");
        write_variant(variant, bytes);
    })
}

fn write_variant(variant: &Variant, bytes: &mut KeyBytes) {
    bytes.part(joined(variant.names()).as_bytes());
    bytes.part(variant.lines());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, HeaderValue, Request, request};

    use super::*;
    use crate::{RequestKeyExtractor, replicas::MemoryStore};

    fn client() -> ReplicaClient {
        let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
        ReplicaClient::in_memory(&store)
    }

    fn get(uri: &str, fields: &[(&'static str, &'static str)]) -> request::Parts {
        let mut request = Request::get(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn name(client: &ReplicaClient, request: &request::Parts) -> Digest {
        let extractor = RequestKeyExtractor::new();
        request_name(client, &request.method, |bytes| {
            extractor.write_shared(request, bytes);
        })
    }

    #[test]
    fn a_request_has_one_name_at_all_replicas_and_another_where_its_key_is_another() {
        let clients = [client(), client()];
        let base = get("/a?b", &[("accept", "x"), ("user-agent", "one")]);
        let same = get("/a?b", &[("accept", "x"), ("user-agent", "two")]);
        assert_eq!(name(&clients[0], &base), name(&clients[1], &same));
        let mut head = get("/a?b", &[("accept", "x")]);
        head.method = Method::HEAD;
        let others = [
            get("/a?c", &[("accept", "x")]),
            get("/a?b", &[("accept", "y")]),
            get("/a?b", &[("accept", "x"), ("cookie", "x")]),
            get("/a?b", &[("acceptx", "")]),
            get("http://host/a?b", &[("accept", "x")]),
            get(
                "/a?b",
                &[
                    ("accept", "x"),
                    ("user-agent", "one"),
                    ("connection", "user-agent"),
                ],
            ),
            head,
        ];
        let mut names: Vec<_> = others
            .iter()
            .map(|other| name(&clients[0], other))
            .collect();
        names.push(name(&clients[0], &base));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_variant_has_a_name_by_its_key_and_its_values() {
        let client = client();
        let of = |agent: &'static str| {
            let mut fields = http::HeaderMap::new();
            fields.insert("user-agent", HeaderValue::from_static(agent));
            Variant::new([HeaderName::from_static("user-agent")].into(), &fields)
        };
        let (one, two) = (of("one"), of("two"));
        assert_eq!(
            variant_values(&client, &one),
            variant_values(&client, &of("one"))
        );
        assert_ne!(variant_values(&client, &one), variant_values(&client, &two));
        let key = Digest(1);
        assert_ne!(
            variant_name(&client, key, &one),
            variant_name(&client, key, &two)
        );
        assert_ne!(
            variant_name(&client, key, &one),
            variant_name(&client, Digest(2), &one)
        );
        assert_ne!(
            variant_name(&client, key, &one),
            variant_values(&client, &one)
        );
        // Of fields that a request has not, the names alone tell.
        let without = |name| {
            let names = [HeaderName::from_static(name)];
            Variant::new(names.into(), &http::HeaderMap::new())
        };
        let (one, two) = (without("user-agent"), without("accept"));
        assert_ne!(variant_values(&client, &one), variant_values(&client, &two));
    }
}
