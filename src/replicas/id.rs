//! The protocol's names: 128 bits each, random except for digests.

use std::fmt;

/// Makes random names, which never repeat.
pub(crate) type Ids = Box<dyn FnMut() -> u128 + Send>;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(pub(crate) u128);

        impl From<u128> for $name {
            fn from(name: u128) -> Self {
                Self(name)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Enough to distinguish two.
                write!(f, concat!(stringify!($name), "({:08x})"), self.0 as u32)
            }
        }
    )*};
}

names! {
    /// A replica's channel.
    Inbox
    /// An attempt of a local flight to lead its key.
    FlightId
    /// An attempt of a local flight to follow another replica's.
    Seat
    /// The digest of a key or a target, keyed with the shared secret.
    Digest
}

/// A name as 32 hexadecimal digits.
pub(crate) fn hex(name: u128) -> String {
    format!("{name:032x}")
}

/// Parses such digits.
pub(crate) fn parse<T: From<u128>>(hex: &[u8]) -> Option<T> {
    let digits = hex.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if hex.len() != 32 || !digits {
        return None;
    }
    let hex = std::str::from_utf8(hex).ok()?;
    u128::from_str_radix(hex, 16).ok().map(T::from)
}

/// Random names from the operating system.
///
/// # Panics
///
/// If the operating system gives no random numbers.
pub(crate) fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    u128::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_32_lower_case_digits_and_nothing_else() {
        for name in [0, 1, 0xabcd, u128::MAX, random()] {
            assert_eq!(parse(hex(name).as_bytes()), Some(name));
        }
        let digits = hex(0xabcd);
        for other in [
            "",
            &digits[1..],
            &format!("0{digits}"),
            &digits.to_uppercase(),
            &digits.replacen('0', "+", 1),
            &digits.replacen('0', " ", 1),
            &digits.replacen('0', "g", 1),
        ] {
            assert_eq!(parse::<u128>(other.as_bytes()), None, "{other}");
        }
    }
}
