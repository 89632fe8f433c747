//! The messages between replicas, and how they are written.
//!
//! A message is a version byte, a nonce, and the rest encrypted with XChaCha20-Poly1305, whose tag covers everything:
//! without the secret nobody can read or change it. A message that can't be opened or parsed is ignored.

use std::{mem, time::Duration};

use bytes::{Buf, BufMut, Bytes};

use super::{
    id::{self, Digest, FlightId, Inbox, Seat},
    secret::Sealer,
};

/// The first byte of messages and values. Other versions are ignored.
const VERSION: u8 = 1;

/// A larger answer, in bytes, is kept in the store and not sent in a message.
pub(crate) const INLINE: usize = 64 << 10;

/// A longer message is not ours.
const LONGEST: usize = INLINE + 256;

/// Why a leader has no answer for followers at other replicas, which then make their own calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum NotShared {
    Unshareable = 0,
    TooLarge = 1,
    Failed = 2,
    Full = 3,
}

impl NotShared {
    pub(crate) const ALL: [Self; 4] = [Self::Unshareable, Self::TooLarge, Self::Failed, Self::Full];
}

/// The flight and the seat that a message is about, and their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) digest: Digest,
    pub(crate) flight: FlightId,
    pub(crate) seat: Seat,
}

/// Declares the messages, each with the byte that it begins with, and how they are written and read.
macro_rules! messages {
    ($($(#[$doc:meta])* $kind:literal $name:ident { $($field:ident: $type:ty),* })*) => {
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum Message {
            $($(#[$doc])* $name { $($field: $type),* },)*
        }

        impl Wire for Message {
            fn write(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name { $($field),* } => {
                        out.push($kind);
                        $($field.write(out);)*
                    })*
                }
            }

            fn read(rest: &mut Bytes) -> Option<Self> {
                Some(match rest.try_get_u8().ok()? {
                    $($kind => Self::$name { $($field: Wire::read(rest)?),* },)*
                    _ => return None,
                })
            }
        }
    };
}

messages! {
    /// To the leader: a local flight at `inbox` follows. Its callers below `asked` had asked when this was sent.
    1 Join { to: Address, inbox: Inbox, asked: u64 }
    /// To the leader: callers below `asked` have asked by now. Takes the seat if this arrives before its join.
    2 Cover { to: Address, inbox: Inbox, asked: u64 }
    /// To the leader: the follower leaves, or has fetched its answer.
    3 Leave { to: Address }
    /// To the leader: is the seat there?
    4 Probe { to: Address, inbox: Inbox }
    /// To a follower: the seat is there.
    5 Here { to: Address }
    /// To a follower, from the flight's replica `from`: the seat is not there and can't be taken.
    6 Gone { to: Address, from: Inbox }
    /// To a follower: make your own call, there will be no answer.
    7 Alone { to: Address, reason: NotShared }
    /// To a follower: the answer for callers below `covered`, made at `from` by a call that `took` so long.
    8 Answer { to: Address, from: Inbox, covered: u64, took: Duration, body: AnswerBody }
    /// To this replica itself.
    10 Echo { number: u64 }
    /// To all: nobody may join a flight of this key or target any more.
    11 Forget { from: Inbox, name: Digest }
    /// To all: nobody may join any flight any more.
    12 ForgetAll { from: Inbox }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AnswerBody {
    Inline(Bytes),
    /// In the store, under the flight's name.
    Stored,
}

/// Written one after the other; reading accepts exactly what writing produces.
trait Wire: Sized {
    fn write(&self, out: &mut Vec<u8>);

    fn read(rest: &mut Bytes) -> Option<Self>;
}

// ===== impl Message =====

impl Message {
    /// Encrypts the message. The store's script then appends the flight to a join.
    pub(crate) fn seal(&self, sealer: &Sealer) -> Vec<u8> {
        let mut plain = Vec::with_capacity(128);
        self.write(&mut plain);
        sealer.seal(VERSION, &[], &plain)
    }

    /// `None` if it is foreign, garbled, or of another version.
    pub(crate) fn open(sealed: &[u8], sealer: &Sealer) -> Option<Self> {
        if sealed.len() > LONGEST {
            return None;
        }
        // Only joins have a flight appended, in hexadecimal.
        if let Some(plain) = sealer.open(VERSION, &[], sealed) {
            return Self::read_all(plain, None);
        }
        let (sealed, flight) = sealed.split_at_checked(sealed.len().checked_sub(32)?)?;
        let plain = sealer.open(VERSION, &[], sealed)?;
        Self::read_all(plain, Some(id::parse(flight)?))
    }

    /// `joined`: the flight that the store's script has appended, which it does only to joins.
    fn read_all(mut plain: Bytes, joined: Option<FlightId>) -> Option<Self> {
        let mut message = Self::read(&mut plain)?;
        match (&mut message, joined) {
            (Self::Join { to, .. }, Some(flight)) => to.flight = flight,
            (Self::Join { .. }, None) | (_, Some(_)) => return None,
            (_, None) => {}
        }
        plain.is_empty().then_some(message)
    }
}

// ===== values =====

/// Encrypts the answer of `flight`, for the store to keep.
pub(crate) fn seal_value(
    flight: FlightId,
    digest: Digest,
    body: &[u8],
    sealer: &Sealer,
) -> Vec<u8> {
    sealer.seal(VERSION, &value_name(flight, digest), body)
}

/// `None` if the store has something else under the name of `flight`.
pub(crate) fn open_value(
    flight: FlightId,
    digest: Digest,
    sealed: &[u8],
    sealer: &Sealer,
) -> Option<Bytes> {
    sealer.open(VERSION, &value_name(flight, digest), sealed)
}

fn value_name(flight: FlightId, digest: Digest) -> Vec<u8> {
    [flight.0.to_be_bytes(), digest.0.to_be_bytes()].concat()
}

// ===== impl Wire =====

macro_rules! names {
    ($($name:ident)*) => {$(
        impl Wire for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.put_u128(self.0);
            }

            fn read(rest: &mut Bytes) -> Option<Self> {
                rest.try_get_u128().ok().map(Self)
            }
        }
    )*};
}

names! { Inbox FlightId Seat Digest }

impl Wire for Address {
    fn write(&self, out: &mut Vec<u8>) {
        self.digest.write(out);
        self.flight.write(out);
        self.seat.write(out);
    }

    fn read(rest: &mut Bytes) -> Option<Self> {
        Some(Self {
            digest: Wire::read(rest)?,
            flight: Wire::read(rest)?,
            seat: Wire::read(rest)?,
        })
    }
}

impl Wire for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(*self);
    }

    fn read(rest: &mut Bytes) -> Option<Self> {
        rest.try_get_u64().ok()
    }
}

/// In microseconds.
impl Wire for Duration {
    fn write(&self, out: &mut Vec<u8>) {
        (self.as_micros() as u64).write(out);
    }

    fn read(rest: &mut Bytes) -> Option<Self> {
        Wire::read(rest).map(Self::from_micros)
    }
}

impl Wire for NotShared {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }

    fn read(rest: &mut Bytes) -> Option<Self> {
        let code = rest.try_get_u8().ok()?;
        Self::ALL.into_iter().find(|&reason| reason as u8 == code)
    }
}

/// The last part of its message.
impl Wire for AnswerBody {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Inline(bytes) => {
                out.push(0);
                out.put_slice(bytes);
            }
            Self::Stored => out.push(1),
        }
    }

    fn read(rest: &mut Bytes) -> Option<Self> {
        match rest.try_get_u8().ok()? {
            0 => Some(Self::Inline(mem::take(rest))),
            1 => Some(Self::Stored),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replicas::secret::Secret;

    fn sealer(secret: &str) -> Sealer {
        Secret::new(secret.as_bytes()).sealer("test")
    }

    fn ours() -> Sealer {
        sealer("0123456789abcdef0123456789abcdef")
    }

    fn address() -> impl Strategy<Value = Address> {
        any::<(u128, u128, u128)>().prop_map(|(digest, flight, seat)| Address {
            digest: Digest(digest),
            flight: FlightId(flight),
            seat: Seat(seat),
        })
    }

    fn message() -> impl Strategy<Value = Message> {
        let body = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300)
                .prop_map(|bytes| AnswerBody::Inline(bytes.into())),
            Just(AnswerBody::Stored),
        ];
        let reason = prop::sample::select(NotShared::ALL.to_vec());
        prop_oneof![
            (address(), any::<u128>(), any::<u64>()).prop_map(|(to, inbox, asked)| {
                Message::Cover {
                    to,
                    inbox: Inbox(inbox),
                    asked,
                }
            }),
            address().prop_map(|to| Message::Leave { to }),
            (address(), any::<u128>()).prop_map(|(to, inbox)| Message::Probe {
                to,
                inbox: Inbox(inbox)
            }),
            address().prop_map(|to| Message::Here { to }),
            (address(), any::<u128>()).prop_map(|(to, from)| Message::Gone {
                to,
                from: Inbox(from)
            }),
            (address(), reason).prop_map(|(to, reason)| Message::Alone { to, reason }),
            (address(), any::<(u128, u64, u32)>(), body).prop_map(
                |(to, (from, covered, took), body)| Message::Answer {
                    to,
                    from: Inbox(from),
                    covered,
                    took: Duration::from_micros(took.into()),
                    body,
                }
            ),
            any::<u64>().prop_map(|number| Message::Echo { number }),
            any::<(u128, u128)>().prop_map(|(from, name)| Message::Forget {
                from: Inbox(from),
                name: Digest(name)
            }),
            any::<u128>().prop_map(|from| Message::ForgetAll { from: Inbox(from) }),
        ]
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was_written(message in message()) {
            let sealed = message.seal(&ours());
            prop_assert_eq!(Message::open(&sealed, &ours()), Some(message));
        }

        #[test]
        fn a_join_is_read_with_the_flight_that_the_store_added(to in address(), inbox: u128, asked: u64) {
            let join = Message::Join { to, inbox: Inbox(inbox), asked };
            let mut sealed = join.seal(&ours());
            prop_assert_eq!(Message::open(&sealed, &ours()), None);
            sealed.extend(id::hex(to.flight.0).bytes());
            prop_assert_eq!(Message::open(&sealed, &ours()), Some(join));
        }

        #[test]
        fn a_message_with_one_bit_changed_is_ignored(message in message(), at: prop::sample::Index, bit in 0..8u32) {
            let mut sealed = message.seal(&ours());
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(Message::open(&sealed, &ours()), None);
        }

        #[test]
        fn a_cut_message_is_ignored(message in message(), at: prop::sample::Index) {
            let sealed = message.seal(&ours());
            prop_assert_eq!(Message::open(&sealed[..at.index(sealed.len())], &ours()), None);
        }

        #[test]
        fn garbage_is_ignored(garbage in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Message::open(&garbage, &ours()), None);
            // Also what somebody with the secret has written.
            let plain = Bytes::from(garbage);
            if let Some(message) = Message::read_all(plain.clone(), None) {
                let mut written = Vec::new();
                message.write(&mut written);
                prop_assert_eq!(written, plain);
            }
        }

        #[test]
        fn a_message_of_another_secret_or_namespace_is_ignored(message in message()) {
            let sealed = message.seal(&ours());
            prop_assert_eq!(Message::open(&sealed, &sealer("another secret of thirty-two bytes!")), None);
            let other = Secret::new(b"0123456789abcdef0123456789abcdef").sealer("test2");
            prop_assert_eq!(Message::open(&sealed, &other), None);
        }

        #[test]
        fn a_value_is_read_under_its_own_name_alone(flight: u128, digest: u128, body in prop::collection::vec(any::<u8>(), 0..100)) {
            let (flight, digest) = (FlightId(flight), Digest(digest));
            let sealed = seal_value(flight, digest, &body, &ours());
            prop_assert_eq!(open_value(flight, digest, &sealed, &ours()), Some(Bytes::from(body)));
            prop_assert_eq!(open_value(FlightId(flight.0 ^ 1), digest, &sealed, &ours()), None);
            prop_assert_eq!(open_value(flight, Digest(digest.0 ^ 1), &sealed, &ours()), None);
        }
    }

    #[test]
    fn a_message_that_is_longer_than_any_is_not_even_opened() {
        let sealed = |body: usize| {
            let answer = Message::Answer {
                to: Address {
                    digest: Digest(1),
                    flight: FlightId(2),
                    seat: Seat(3),
                },
                from: Inbox(4),
                covered: 1,
                took: Duration::ZERO,
                body: AnswerBody::Inline(vec![0; body].into()),
            };
            answer.seal(&ours())
        };
        let most = INLINE + LONGEST - sealed(INLINE).len();
        assert!(Message::open(&sealed(most), &ours()).is_some());
        assert!(Message::open(&sealed(most + 1), &ours()).is_none());
    }

    #[test]
    fn nothing_of_an_answer_is_in_clear() {
        let to = Address {
            digest: Digest(1),
            flight: FlightId(2),
            seat: Seat(3),
        };
        let answer = Message::Answer {
            to,
            from: Inbox(4),
            covered: 1,
            took: Duration::ZERO,
            body: AnswerBody::Inline(Bytes::from_static(b"location: /private/page")),
        };
        let sealed = answer.seal(&ours());
        assert!(!sealed.windows(8).any(|part| {
            b"location: /private/page"
                .windows(8)
                .any(|plain| plain == part)
        }));
        assert_ne!(answer.seal(&ours()), sealed);
    }
}
