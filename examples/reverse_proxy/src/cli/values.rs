//! Values of options, and what is wrong with them in words.

use std::time::Duration;

use http::{HeaderName, Uri, uri::Scheme};

use super::StoreKind;

pub(super) fn upstream(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("not a URL: {error}"))?;
    let known = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
    let Some(authority) = uri.authority().filter(|_| known) else {
        return Err("expected http://host[:port] or https://host[:port]".to_owned());
    };
    if authority.as_str().contains('@') {
        return Err("user information in a URL is not supported".to_owned());
    }
    if uri.query().is_some() {
        return Err("a query can't be a prefix".to_owned());
    }
    Ok(uri)
}

/// `250ms`, `5s`, `2m`; seconds without a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        other => return Err(format!("unknown unit {other:?}: use ms, s or m")),
    };
    let number: f64 = number.parse().map_err(|_| "not a number".to_owned())?;
    match Duration::try_from_secs_f64(number * unit) {
        Ok(Duration::ZERO) => Err("must be more than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// `4096`, `64KiB`, `2MiB`, `1GiB`; `64K`, `2M` and `1G` are the same, as they are to nginx.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = number_and_unit(text);
    let unit: usize = match unit {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        other => return Err(format!("unknown unit {other:?}: use KiB, MiB or GiB")),
    };
    let number: usize = number
        .parse()
        .map_err(|_| "not a whole number".to_owned())?;
    let bytes = number.checked_mul(unit);
    bytes.ok_or_else(|| "more than this machine can address".to_owned())
}

/// What RFC 9211 can write; the layer itself would panic.
pub(super) fn cache_name(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if text.is_empty() || !printable {
        return Err("expected printable ASCII".to_owned());
    }
    Ok(text.to_owned())
}

/// From 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

pub(super) fn field(text: &str) -> Result<HeaderName, String> {
    text.parse()
        .map_err(|_| "not the name of a header field".to_owned())
}

/// What the library takes; it would panic.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("expected 1 to 128 letters, digits and -_./:@".to_owned())
}

pub(super) fn store_kind(text: &str) -> Result<StoreKind, String> {
    match (text, text.strip_prefix("sentinel:")) {
        ("single", _) => Ok(StoreKind::Single),
        ("cluster", _) => Ok(StoreKind::Cluster),
        (_, Some(name)) if !name.is_empty() => Ok(StoreKind::Sentinel(name.to_owned())),
        _ => Err("expected single, cluster or sentinel:NAME".to_owned()),
    }
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    (digits, &text[digits.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("2MiB"), Ok(2 << 20));
        assert_eq!(bytes("16M"), bytes("16MiB"));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_in_words() {
        for text in ["", "-1", "1KB", "1.5MiB", "99999999999GiB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in ["", "0s", "1h", "-1s", "NaN", "infs"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "-0.1", "1.1", "NaN", "5%"] {
            assert!(share(text).is_err(), "{text}");
        }
        for text in ["origin", "ftp://a", "http://ann@a", "http://a/?q", "//a"] {
            assert!(upstream(text).is_err(), "{text}");
        }
        for text in ["", "shop web", "shop*", &"n".repeat(129)] {
            assert!(namespace(text).is_err(), "{text}");
        }
        for text in ["", "many", "sentinel", "sentinel:"] {
            assert!(store_kind(text).is_err(), "{text}");
        }
    }
}
