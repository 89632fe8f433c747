//! Lists in header fields: `Cache-Control` directives and plain tokens, on bytes.

use http::{HeaderMap, HeaderName, HeaderValue};

/// One member of a list of directives (RFC 9111 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Directive<'a> {
    name: &'a [u8],
    /// What stands after `=`, a quoted string with its quotes.
    argument: Option<&'a [u8]>,
}

/// A field that does not follow the grammar; nothing can be said of what its sender meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

/// Whether a line holds one of `names` (in lower case), with or without an argument, or is malformed.
///
/// All names that are asked for forbid sharing, so a malformed line counts as one that holds them.
pub(super) fn forbids(value: &HeaderValue, names: &[&str]) -> bool {
    any_forbids(parse(value, b","), names)
}

/// As [`forbids`], of a line whose members may have parameters (RFC 9213 section 2.1); they count as members.
pub(super) fn forbids_with_parameters(value: &HeaderValue, names: &[&str]) -> bool {
    any_forbids(parse(value, b",;"), names)
}

fn any_forbids(mut directives: Directives<'_>, names: &[&str]) -> bool {
    directives.any(|directive| match directive {
        Ok(directive) => names.iter().any(|name| directive.is(name)),
        Err(Malformed) => true,
    })
}

/// The directives of one field line, with one of `separators` between any two; after a malformed one there is no more.
fn parse<'a>(value: &'a HeaderValue, separators: &'static [u8]) -> Directives<'a> {
    Directives {
        rest: value.as_bytes(),
        separators,
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

#[derive(Clone, Debug)]
struct Directives<'a> {
    rest: &'a [u8],
    separators: &'static [u8],
}

// ===== impl Directive =====

impl Directive<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

// ===== impl Directives =====

impl<'a> Directives<'a> {
    fn token(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().take_while(|byte| is_tchar(**byte)).count();
        self.take(end)
    }

    /// A quoted string with its quotes; `None` if it does not end (RFC 9110 section 5.6.4). What it must not hold, no field value
    /// holds.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        let mut at = 1;
        loop {
            match self.rest.get(at)? {
                b'"' => return self.take(at + 1),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }

    fn take(&mut self, end: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!taken.is_empty()).then_some(taken)
    }

    fn separates(&self, byte: u8) -> bool {
        self.separators.contains(&byte)
    }

    fn directive(&mut self) -> Option<Directive<'a>> {
        let name = self.token()?;
        let argument = match self.rest {
            [b'=', b'"', ..] => {
                self.rest = &self.rest[1..];
                Some(self.quoted()?)
            }
            [b'=', ..] => {
                self.rest = &self.rest[1..];
                Some(self.token()?)
            }
            _ => None,
        };
        self.rest = trim(self.rest);
        // What is left begins with the separator that ends this member, or the member was something else.
        let ends = self.rest.first().is_none_or(|byte| self.separates(*byte));
        ends.then_some(Directive { name, argument })
    }
}

impl<'a> Iterator for Directives<'a> {
    type Item = Result<Directive<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        // A recipient must take empty members (RFC 9110 section 5.6.1.2).
        while let [byte, rest @ ..] = self.rest {
            if !matches!(byte, b' ' | b'\t') && !self.separates(*byte) {
                break;
            }
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        Some(self.directive().ok_or_else(|| {
            self.rest = &[];
            Malformed
        }))
    }
}

#[cfg(test)]
mod tests {
    use http::header::CACHE_CONTROL;
    use proptest::prelude::*;

    use super::*;

    fn parsed(value: &[u8]) -> Result<Vec<(String, Option<String>)>, Malformed> {
        let value = HeaderValue::from_bytes(value).expect("a header value");
        parse(&value, b",")
            .map(|directive| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                directive.map(|directive| (text(directive.name), directive.argument.map(text)))
            })
            .collect()
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        lines
            .iter()
            .map(|line| (CACHE_CONTROL, line.parse().expect("a header value")))
            .collect()
    }

    fn any_forbids(lines: &[&str]) -> bool {
        headers(lines)
            .values()
            .any(|line| forbids(line, &["no-store"]))
    }

    #[test]
    fn a_list_is_split_at_commas_and_its_empty_members_are_skipped() {
        let name = |name: &str| (name.to_owned(), None);
        assert_eq!(parsed(b""), Ok(vec![]));
        assert_eq!(parsed(b" , ,"), Ok(vec![]));
        assert_eq!(parsed(b"a,b"), Ok(vec![name("a"), name("b")]));
        assert_eq!(parsed(b"\ta ,, b\t"), Ok(vec![name("a"), name("b")]));
    }

    #[test]
    fn an_argument_is_a_token_or_a_quoted_string() {
        let with = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        assert_eq!(parsed(b"max-age=5"), Ok(vec![with("max-age", "5")]));
        assert_eq!(parsed(b"a=\"x, y\""), Ok(vec![with("a", "\"x, y\"")]));
        assert_eq!(
            parsed(br#"a="x\", private", b=2"#),
            Ok(vec![with("a", r#""x\", private""#), with("b", "2")])
        );
        assert_eq!(parsed(b"a=\"\xff\""), Ok(vec![with("a", "\"\u{fffd}\"")]));
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
            assert_eq!(
                parsed(value),
                Err(Malformed),
                "{:?}",
                value.escape_ascii().to_string()
            );
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
            assert!(any_forbids(lines));
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
            assert!(!any_forbids(lines));
        }
    }

    #[test]
    fn a_malformed_field_forbids() {
        assert!(any_forbids(&["a b"]));
        assert!(any_forbids(&["public", "a=\"no-st", "ore\""]));
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
                prop_assert!(parse(&value, b",;").count() <= bytes.len());
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
            let expected: Vec<_> = members
                .iter()
                .map(|(name, argument)| (name.clone(), argument.as_deref().map(quoted)))
                .collect();
            let written: Vec<_> = expected
                .iter()
                .map(|(name, argument)| match argument {
                    Some(argument) => format!("{name}={argument}"),
                    None => name.clone(),
                })
                .collect();
            prop_assert_eq!(parsed(written.join(&separator).as_bytes()), Ok(expected));
        }
    }
}
