//! Lists in header fields: `Cache-Control` directives and plain tokens, on bytes.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Whether a line of directives (RFC 9111 section 5.2) holds one of `names` (in lower case), with or without an argument,
/// or is malformed.
///
/// All names that are asked for forbid sharing, so a malformed line counts as one that holds them.
pub(super) fn forbids(value: &HeaderValue, names: &[&str]) -> bool {
    any_forbids(value, b",", names)
}

/// As [`forbids`], of a line whose members may have parameters (RFC 9213 section 2.1); they count as members.
pub(super) fn forbids_with_parameters(value: &HeaderValue, names: &[&str]) -> bool {
    any_forbids(value, b",;", names)
}

/// `separators`: one of them ends each member but the last.
fn any_forbids(value: &HeaderValue, separators: &[u8], names: &[&str]) -> bool {
    let begins = |byte: &u8| !matches!(byte, b' ' | b'\t') && !separators.contains(byte);
    let is_asked = |name: &[u8]| {
        names
            .iter()
            .any(|it| name.eq_ignore_ascii_case(it.as_bytes()))
    };
    let mut rest = value.as_bytes();
    // A recipient must take empty members (RFC 9110 section 5.6.1.2).
    while let Some(start) = rest.iter().position(begins) {
        rest = &rest[start..];
        if directive(&mut rest, separators).is_none_or(is_asked) {
            return true;
        }
    }
    false
}

/// Takes a member off, and returns its name; `None` if it does not follow the grammar.
fn directive<'a>(rest: &mut &'a [u8], separators: &[u8]) -> Option<&'a [u8]> {
    let name = token(rest)?;
    if let Some(argument) = rest.strip_prefix(b"=") {
        *rest = argument;
        match argument.strip_prefix(b"\"") {
            Some(quoted) => *rest = behind_quoted(quoted)?,
            None => _ = token(rest)?,
        }
    }
    *rest = trim(rest);
    // What is left begins with the separator that ends this member, or the member was something else.
    let ends = rest.first().is_none_or(|byte| separators.contains(byte));
    ends.then_some(name)
}

fn token<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().take_while(|byte| is_tchar(**byte)).count();
    let (token, behind) = rest.split_at(end);
    *rest = behind;
    (!token.is_empty()).then_some(token)
}

/// What follows a quoted string; `None` if it does not end (RFC 9110 section 5.6.4). What it must not hold, no field
/// value holds.
fn behind_quoted(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', _, behind @ ..] | [_, behind @ ..] => behind,
            [] => return None,
        };
    }
}

/// The non-empty members of a comma list of tokens, over all lines of a field, without the space around them.
///
/// They are not validated: a member may be anything but a comma.
pub(crate) fn tokens<'a>(
    headers: &'a HeaderMap,
    field: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(field).iter().flat_map(members)
}

/// As [`tokens`], of one line.
pub(crate) fn members(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// `bytes` without the optional white space (RFC 9110 section 5.6.3) at either end.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(crate) fn is_tchar(byte: u8) -> bool {
    /// Looked up for each byte of most requests' `Cache-Control`.
    const TCHARS: [bool; 256] = {
        let mut all = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            all[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut others: &[u8] = b"!#$%&'*+-.^_`|~";
        while let [byte, rest @ ..] = others {
            all[*byte as usize] = true;
            others = rest;
        }
        all
    };
    TCHARS[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use http::header::CACHE_CONTROL;
    use proptest::prelude::*;

    use super::*;

    fn line(bytes: &[u8]) -> HeaderValue {
        HeaderValue::from_bytes(bytes).expect("a header value")
    }

    fn is_malformed(bytes: &[u8]) -> bool {
        forbids(&line(bytes), &[])
    }

    /// Whether a line is well-formed and holds of `a`, `b` and `private` just these.
    fn holds(bytes: &[u8], names: &[&str]) -> bool {
        let held = ["a", "b", "private"].into_iter();
        let held: Vec<_> = held.filter(|name| forbids(&line(bytes), &[name])).collect();
        !is_malformed(bytes) && held == names
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        lines
            .iter()
            .map(|line| (CACHE_CONTROL, line.parse().expect("a header value")))
            .collect()
    }

    fn any_line_forbids(lines: &[&str]) -> bool {
        headers(lines)
            .values()
            .any(|line| forbids(line, &["no-store"]))
    }

    #[test]
    fn a_list_is_split_at_commas_and_its_empty_members_are_skipped() {
        assert!(holds(b"", &[]));
        assert!(holds(b" , ,", &[]));
        assert!(holds(b"a,b", &["a", "b"]));
        assert!(holds(b"\ta ,, b\t", &["a", "b"]));
    }

    #[test]
    fn an_argument_is_a_token_or_a_quoted_string() {
        assert!(holds(b"max-age=5", &[]));
        assert!(holds(b"a=\"x, b\"", &["a"]));
        assert!(holds(br#"a="x\", private", b=2"#, &["a", "b"]));
        assert!(holds(b"a=\"\xff\"", &["a"]));
        assert!(holds(b"a=\"\",private", &["a", "private"]));
    }

    #[test]
    fn what_is_outside_the_grammar_is_malformed() {
        for value in [
            &b"a b"[..],
            b"a;b",
            b"a =1",
            b"a= 1",
            b"a=",
            b"=a",
            b"\"a\"",
            b"a=\"b",
            b"a=\"b\\",
            b"a=\"b\\\"",
            b"a=\"b\"c",
            b"a=b\"c\"",
            b"\xff",
            b"a=\xff",
            b"public, \xe9",
        ] {
            assert!(is_malformed(value), "{}", value.escape_ascii());
        }
    }

    #[test]
    fn a_name_is_found_in_any_line_in_any_case_with_any_argument() {
        for lines in [
            &["no-store"][..],
            &["No-Store"],
            &["max-age=3", "public, NO-STORE"],
            &["no-store=\"x\""],
            &["no-store=1"],
        ] {
            assert!(any_line_forbids(lines));
        }
    }

    #[test]
    fn a_name_inside_another_or_inside_quotes_is_not_found() {
        for lines in [
            &[][..],
            &[""],
            &["x-no-store, no-store-x"],
            &["a=\"no-store, no-store\""],
            &["a=no-store"],
        ] {
            assert!(!any_line_forbids(lines));
        }
    }

    #[test]
    fn a_malformed_field_forbids() {
        assert!(any_line_forbids(&["a b"]));
        assert!(any_line_forbids(&["public", "a=\"no-st", "ore\""]));
    }

    #[test]
    fn parameters_are_no_fault_of_a_line_that_may_have_them_and_count_as_members() {
        let forbids =
            |line| forbids_with_parameters(&HeaderValue::from_static(line), &["no-store"]);
        assert!(!forbids("max-age=60;a;b=\"c;no-store\" ; d=1, e"));
        for line in [
            "no-store;a",
            "max-age=60;no-store",
            "a;b c",
            "a;\"b\"",
            "a=?0",
        ] {
            assert!(forbids(line), "{line}");
        }
    }

    #[test]
    fn tokens_come_from_all_lines_without_their_space() {
        let headers = headers(&["a, b ,", "\tc"]);
        let tokens: Vec<_> = tokens(&headers, &CACHE_CONTROL).collect();
        assert_eq!(tokens, [b"a", b"b", b"c"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic_and_to_an_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                forbids_with_parameters(&value, &[]);
            }
        }

        #[test]
        fn what_was_written_is_what_is_read(
            members in proptest::collection::vec(
                ("[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,8}", proptest::option::of("[ -~]{0,12}")),
                0..6,
            ),
            separator in " {0,2},[ ,]{0,3}",
        ) {
            let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let written: Vec<_> = members
                .iter()
                .map(|(name, argument)| match argument {
                    Some(argument) => format!("{name}={}", quoted(argument)),
                    None => name.clone(),
                })
                .collect();
            let written = written.join(&separator);
            prop_assert!(!is_malformed(written.as_bytes()));
            let holds = |name: &str| forbids(&line(written.as_bytes()), &[name]);
            for (name, _) in &members {
                prop_assert!(holds(name));
            }
            // In an argument it counts for nothing.
            let argument = members.iter().find_map(|(_, argument)| argument.as_deref());
            let is_name = |text: &str| members.iter().any(|(name, _)| name.eq_ignore_ascii_case(text));
            if let Some(argument) = argument.filter(|text| !is_name(text)) {
                prop_assert!(!holds(argument));
            }
        }
    }
}
