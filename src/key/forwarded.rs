//! `Forwarded` (RFC 7239): a key may leave out only the addresses that it lists.

use http::{HeaderMap, HeaderValue, header::FORWARDED};

/// Whether the lines of `Forwarded` hold only addresses: the parameters `for` and `by`.
pub(super) fn holds_addresses_alone(request: &HeaderMap) -> bool {
    request.get_all(FORWARDED).iter().all(is_addresses)
}

/// A service may parse the field less strictly than RFC 7239 asks for. So we split a line at every comma and semicolon,
/// quoted or not, and give up on a line if a value has a byte that any parser might treat specially.
fn is_addresses(line: &HeaderValue) -> bool {
    let mut pairs = line
        .as_bytes()
        .split(|byte| matches!(byte, b',' | b';'))
        .map(<[u8]>::trim_ascii);
    pairs.all(|pair| pair.is_empty() || is_address(pair))
}

/// `for=NODE` or `by=NODE`, the node quoted or not: an address, a name or nothing, with or without a port.
fn is_address(pair: &[u8]) -> bool {
    let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let (name, value) = (&pair[..equals], &pair[equals + 1..]);
    let node = match value {
        [b'"', node @ .., b'"'] => node,
        node => node,
    };
    let is_known = name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by");
    is_known && node.iter().all(|byte| is_of_node(*byte))
}

fn is_of_node(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".:[]_-%/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn read(lines: &[&str]) -> bool {
        let line = |line: &&str| (FORWARDED, line.parse().expect("a value"));
        holds_addresses_alone(&lines.iter().map(line).collect())
    }

    #[test]
    fn lines_of_for_and_by_are_addresses_however_leniently_written() {
        for lines in [
            &[][..],
            &[""],
            &["for=192.0.2.1"],
            &["For=192.0.2.1;BY=203.0.113.43"],
            &["for=192.0.2.1, for=198.51.100.17"],
            &["for=1.2.3.4:80"],
            &["for=[2001:db8::1]:4711"],
            &["for=\"[2001:db8:cafe::17]:4711\""],
            &["for=_gazonk;by=\"_secret\""],
            &["for=unknown"],
            &["for=2001:db8::1"],
            &["for="],
            &["for=\"\""],
            &[";;for=1.2.3.4; ; by=5.6.7.8;", " , ,"],
            &["for=192.0.2.1", "by=10.0.0.1,for=192.0.2.2"],
        ] {
            assert!(read(lines), "{lines:?}");
        }
    }

    #[test]
    fn another_parameter_in_any_line_is_more_than_addresses() {
        for lines in [
            &["host=example.com"][..],
            &["proto=https"],
            &["for=192.0.2.1;host=example.com;proto=https"],
            &["for=192.0.2.1, for=192.0.2.2;host=a"],
            &["for=192.0.2.1", "proto=http"],
            &["proto=http", "for=192.0.2.1"],
            &["secret=x"],
            &["forx=1"],
            &["=1"],
        ] {
            assert!(!read(lines), "{lines:?}");
        }
    }

    #[test]
    fn a_line_that_some_reader_may_take_for_more_cannot_be_read() {
        for line in [
            "for",
            "for =1",
            "for= 1",
            "for=\"a;host=b\"",
            "for=\"a,host=b\"",
            "for=\"host=b\"",
            "for=a=b",
            "for=\"a",
            "for=a\"",
            "for=\"a\"b\"",
            "for=\"a\\\"\"",
            "for=a host=b",
            "for=a\thost=b",
            "for='a'",
            "for=\u{e9}",
        ] {
            assert!(!read(&[line]), "{line:?}");
        }
    }

    /// The parameters that a service finds that cuts at commas and semicolons, and takes what is before `=` for a name.
    fn found_by_a_careless_reader(line: &str) -> Vec<String> {
        let names = line
            .split([',', ';'])
            .map(|pair| pair.split('=').next().unwrap_or_default().trim());
        let names = names.filter(|name| !name.is_empty());
        names.map(str::to_ascii_lowercase).collect()
    }

    /// As RFC 7239 section 4 has it: what is quoted ends at its quote.
    fn found_by_a_careful_reader(line: &str) -> Vec<String> {
        let (mut names, mut name, mut quoted, mut escaped) = (vec![], String::new(), false, false);
        let mut in_name = true;
        for letter in line.chars() {
            match letter {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ',' | ';' if !quoted => {
                    names.push(std::mem::take(&mut name));
                    in_name = true;
                }
                '=' if !quoted => in_name = false,
                letter if in_name => name.push(letter.to_ascii_lowercase()),
                _ => {}
            }
        }
        names.push(name);
        let names = names.iter().map(|name| name.trim().to_owned());
        names.filter(|name| !name.is_empty()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

        #[test]
        fn in_what_is_left_out_no_reader_finds_another_parameter(
            pieces in proptest::collection::vec(select(vec![
                "for", "by", "host", "proto", "For", "=", "=", ";", ";", ",", "\"", "\"", "\\", " ", "\t", "a", "1.2.3.4",
                "[::1]:80", "_x", "unknown",
            ]), 0..12),
        ) {
            let line = pieces.concat();
            let names = [found_by_a_careless_reader(&line), found_by_a_careful_reader(&line)].concat();
            if read(&[&line]) {
                prop_assert!(names.iter().all(|name| name == "for" || name == "by"), "{line:?} {names:?}");
            }
        }

        #[test]
        fn whatever_addresses_a_proxy_writes_are_left_out(
            elements in proptest::collection::vec(
                (
                    proptest::collection::vec((select(vec!["for", "by", "For", "BY"]), select(vec![
                        "192.0.2.43", "192.0.2.43:47011", "\"192.0.2.43:47011\"", "\"[2001:db8:cafe::17]\"",
                        "\"[2001:db8:cafe::17]:4711\"", "[2001:db8:cafe::17]:4711", "unknown", "_hidden", "\"_SEVKISEK\"", "",
                    ])), 0..3),
                    select(vec![";", "; ", " ;", ";;"]),
                ),
                0..4,
            ),
            comma in select(vec![",", ", ", " , ", ",,"]),
        ) {
            let element = |(pairs, semicolon): &(Vec<(&str, &str)>, &str)| {
                let pairs: Vec<_> = pairs.iter().map(|(name, node)| format!("{name}={node}")).collect();
                pairs.join(semicolon)
            };
            let line = elements.iter().map(element).collect::<Vec<_>>().join(comma);
            prop_assert!(read(&[&line]), "{line:?}");
        }
    }
}
