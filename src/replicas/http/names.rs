//! Digests of requests and of variants, the same at all replicas.

use http::{HeaderName, Method};

use crate::{
    replicas::{Digest, KeyBytes, Site},
    rules::Variant,
};

/// The name of the flights of a key, of which `write` writes the parts. GET and HEAD never share one.
pub(crate) fn request_name(
    site: &Site,
    method: &Method,
    write: impl FnOnce(&mut KeyBytes),
) -> Digest {
    site.key(|bytes| {
        bytes.part(b"request");
        bytes.part(method.as_str().as_bytes());
        write(bytes);
    })
}

/// The name of the flights of a variant of the key `request`: who has the same values meets there.
pub(crate) fn variant_name(site: &Site, request: Digest, variant: &Variant) -> Digest {
    site.key(|bytes| {
        bytes.part(b"variant");
        bytes.part(&request.0.to_be_bytes());
        write_variant(variant, bytes);
    })
}

/// What a request has in the fields that a response varies by, so that others can say whether they have the same.
pub(crate) fn variant_values(site: &Site, variant: &Variant) -> Digest {
    site.key(|bytes| {
        bytes.part(b"values");
        write_variant(variant, bytes);
    })
}

fn write_variant(variant: &Variant, bytes: &mut KeyBytes) {
    let names: Vec<_> = variant.names().iter().map(HeaderName::as_str).collect();
    // No name has a comma.
    bytes.part(names.join(",").as_bytes());
    bytes.part(variant.lines());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderValue, Request, request};

    use super::*;
    use crate::{RequestKeyExtractor, replicas::MemoryStore};

    fn site() -> Site {
        let store = MemoryStore::new(Duration::from_secs(2), Duration::from_secs(10));
        Site::in_memory(&store)
    }

    fn get(uri: &str, fields: &[(&'static str, &'static str)]) -> request::Parts {
        let mut request = Request::get(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn name(site: &Site, request: &request::Parts) -> Digest {
        let extractor = RequestKeyExtractor::new();
        request_name(site, &request.method, |bytes| {
            extractor.write_shared(request, bytes);
        })
    }

    #[test]
    fn a_request_has_one_name_at_all_replicas_and_another_where_its_key_is_another() {
        let sites = [site(), site()];
        let base = get("/a?b", &[("accept", "x"), ("user-agent", "one")]);
        let same = get("/a?b", &[("accept", "x"), ("user-agent", "two")]);
        assert_eq!(name(&sites[0], &base), name(&sites[1], &same));
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
        let mut names: Vec<_> = others.iter().map(|other| name(&sites[0], other)).collect();
        names.push(name(&sites[0], &base));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_variant_has_a_name_by_its_key_and_its_values() {
        let site = site();
        let of = |agent: &'static str| {
            let mut fields = http::HeaderMap::new();
            fields.insert("user-agent", HeaderValue::from_static(agent));
            Variant::new([HeaderName::from_static("user-agent")].into(), &fields)
        };
        let (one, two) = (of("one"), of("two"));
        assert_eq!(
            variant_values(&site, &one),
            variant_values(&site, &of("one"))
        );
        assert_ne!(variant_values(&site, &one), variant_values(&site, &two));
        let key = Digest(1);
        assert_ne!(
            variant_name(&site, key, &one),
            variant_name(&site, key, &two)
        );
        assert_ne!(
            variant_name(&site, key, &one),
            variant_name(&site, Digest(2), &one)
        );
        assert_ne!(variant_name(&site, key, &one), variant_values(&site, &one));
        // Of fields that a request has not, the names alone tell.
        let without = |name| {
            let names = [HeaderName::from_static(name)];
            Variant::new(names.into(), &http::HeaderMap::new())
        };
        let (one, two) = (without("user-agent"), without("accept"));
        assert_ne!(variant_values(&site, &one), variant_values(&site, &two));
    }
}
