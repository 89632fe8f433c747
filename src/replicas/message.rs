//! What replicas tell each other, and how it is written.
//!
//! A message is one version byte, a nonce, and the rest encrypted with XChaCha20-Poly1305, whose tag is over all of it:
//! whoever lacks the secret reads nothing and changes nothing. What can't be opened or read is ignored.

use std::time::Duration;

use bytes::Bytes;

use super::{
    id::{self, Digest, FlightId, Inbox, Seat, ValueId},
    secret::Sealer,
};

/// The first byte of a message, and of a value: another version's are ignored.
const VERSION: u8 = 1;

/// A larger answer goes by the store and not in a message, in bytes.
pub(crate) const INLINE: usize = 64 << 10;

/// A longer message is none of ours.
const LONGEST: usize = INLINE + 256;

/// AloneReason a follower at another replica is to make a call of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum NotShared {
    Unshareable = 0,
    TooLarge = 1,
    Failed = 2,
    Full = 3,
}

/// Which flight and which seat a message is about, and of which key both are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) digest: Digest,
    pub(crate) flight: FlightId,
    pub(crate) seat: Seat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    // To the leader.
    /// A local flight at `inbox` follows: its callers below `asked` had asked when this was sent.
    Join {
        to: Address,
        inbox: Inbox,
        asked: u64,
    },
    /// Those below `asked` have. It takes the seat where it comes before its join.
    Cover {
        to: Address,
        inbox: Inbox,
        asked: u64,
    },
    /// It follows no longer, or has fetched its answer.
    Leave {
        to: Address,
    },
    /// Is the seat there?
    Probe {
        to: Address,
        inbox: Inbox,
    },

    // To a follower.
    /// It is.
    Here {
        to: Address,
    },
    /// It is not, and can't be taken; says `from`, whose flight it would be.
    Gone {
        to: Address,
        from: Inbox,
    },
    /// There is nothing to wait for: make a call of your own.
    Alone {
        to: Address,
        reason: NotShared,
    },
    /// The answer for callers below `covered`, which a call of so long has given, at `from`.
    Answer {
        to: Address,
        from: Inbox,
        covered: u64,
        took: Duration,
        body: AnswerBody,
    },

    // To oneself.
    Echo {
        number: u64,
    },

    // To all.
    /// Nobody is to join a flight of this key, or of this target, any more.
    Forget {
        from: Inbox,
        name: Digest,
    },
    ForgetAll {
        from: Inbox,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AnswerBody {
    Inline(Bytes),
    /// In the store, under this name.
    Stored(ValueId),
}

// ===== impl NotShared =====

impl NotShared {
    pub(crate) const ALL: [Self; 4] = [Self::Unshareable, Self::TooLarge, Self::Failed, Self::Full];

    pub(crate) fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&reason| reason as u8 == code)
    }
}

// ===== impl Message =====

impl Message {
    /// Encrypts all but a join's flight, which the store's script adds.
    pub(crate) fn seal(&self, sealer: &Sealer) -> Vec<u8> {
        let mut plain = Vec::with_capacity(128);
        self.write(&mut plain);
        sealer.seal(VERSION, &[], &plain)
    }

    /// `None` for what is foreign, garbled, or of another version.
    pub(crate) fn open(sealed: &[u8], sealer: &Sealer) -> Option<Self> {
        if sealed.len() > LONGEST {
            return None;
        }
        // Only joins have a flight behind them, in hexadecimal.
        if let Some(plain) = sealer.open(VERSION, &[], sealed) {
            return Self::read(&plain, None);
        }
        let (sealed, flight) = sealed.split_at_checked(sealed.len().checked_sub(32)?)?;
        let plain = sealer.open(VERSION, &[], sealed)?;
        Self::read(&plain, Some(id::parse(flight)?))
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut address = |kind: u8, to: &Address| {
            out.push(kind);
            out.extend(to.digest.0.to_be_bytes());
            out.extend(to.flight.0.to_be_bytes());
            out.extend(to.seat.0.to_be_bytes());
        };
        match self {
            Self::Join { to, inbox, asked } => {
                // The contender does not know whose flight it will be.
                let to = Address {
                    flight: FlightId(0),
                    ..*to
                };
                address(1, &to);
                out.extend(inbox.0.to_be_bytes());
                out.extend(asked.to_be_bytes());
            }
            Self::Cover { to, inbox, asked } => {
                address(2, to);
                out.extend(inbox.0.to_be_bytes());
                out.extend(asked.to_be_bytes());
            }
            Self::Leave { to } => address(3, to),
            Self::Probe { to, inbox } => {
                address(4, to);
                out.extend(inbox.0.to_be_bytes());
            }
            Self::Here { to } => address(5, to),
            Self::Gone { to, from } => {
                address(6, to);
                out.extend(from.0.to_be_bytes());
            }
            Self::Alone { to, reason } => {
                address(7, to);
                out.push(*reason as u8);
            }
            Self::Answer {
                to,
                from,
                covered,
                took,
                body,
            } => {
                let kind = match body {
                    AnswerBody::Inline(_) => 8,
                    AnswerBody::Stored(_) => 9,
                };
                address(kind, to);
                out.extend(from.0.to_be_bytes());
                out.extend(covered.to_be_bytes());
                out.extend((took.as_micros() as u64).to_be_bytes());
                match body {
                    AnswerBody::Inline(bytes) => out.extend_from_slice(bytes),
                    AnswerBody::Stored(value) => out.extend(value.0.to_be_bytes()),
                }
            }
            Self::Echo { number } => {
                out.push(10);
                out.extend(number.to_be_bytes());
            }
            Self::Forget { from, name } => {
                out.push(11);
                out.extend(from.0.to_be_bytes());
                out.extend(name.0.to_be_bytes());
            }
            Self::ForgetAll { from } => {
                out.push(12);
                out.extend(from.0.to_be_bytes());
            }
        }
    }

    fn read(plain: &Bytes, joined: Option<FlightId>) -> Option<Self> {
        let mut rest = Decoder(plain);
        let kind = rest.take::<1>()?[0];
        // What the script adds belongs to a join and to nothing else.
        if joined.is_some() != (kind == 1) {
            return None;
        }
        let message = match kind {
            1 => Self::Join {
                to: Address {
                    flight: joined?,
                    ..rest.address()?
                },
                inbox: Inbox(rest.u128()?),
                asked: rest.u64()?,
            },
            2 => Self::Cover {
                to: rest.address()?,
                inbox: Inbox(rest.u128()?),
                asked: rest.u64()?,
            },
            3 => Self::Leave {
                to: rest.address()?,
            },
            4 => Self::Probe {
                to: rest.address()?,
                inbox: Inbox(rest.u128()?),
            },
            5 => Self::Here {
                to: rest.address()?,
            },
            6 => Self::Gone {
                to: rest.address()?,
                from: Inbox(rest.u128()?),
            },
            7 => Self::Alone {
                to: rest.address()?,
                reason: NotShared::of(rest.take::<1>()?[0])?,
            },
            8 | 9 => Self::Answer {
                to: rest.address()?,
                from: Inbox(rest.u128()?),
                covered: rest.u64()?,
                took: Duration::from_micros(rest.u64()?),
                body: match kind {
                    8 => AnswerBody::Inline(plain.slice_ref(std::mem::take(&mut rest.0))),
                    _ => AnswerBody::Stored(ValueId(rest.u128()?)),
                },
            },
            10 => Self::Echo {
                number: rest.u64()?,
            },
            11 => Self::Forget {
                from: Inbox(rest.u128()?),
                name: Digest(rest.u128()?),
            },
            12 => Self::ForgetAll {
                from: Inbox(rest.u128()?),
            },
            _ => return None,
        };
        rest.0.is_empty().then_some(message)
    }
}

// ===== values =====

/// Encrypts an answer that the store keeps under `value`.
pub(crate) fn seal_value(value: ValueId, digest: Digest, body: &[u8], sealer: &Sealer) -> Vec<u8> {
    sealer.seal(VERSION, &value_name(value, digest), body)
}

/// `None` where what the store has under `value` is not that.
pub(crate) fn open_value(
    value: ValueId,
    digest: Digest,
    sealed: &[u8],
    sealer: &Sealer,
) -> Option<Bytes> {
    sealer.open(VERSION, &value_name(value, digest), sealed)
}

fn value_name(value: ValueId, digest: Digest) -> [u8; 32] {
    let mut name = [0; 32];
    name[..16].copy_from_slice(&value.0.to_be_bytes());
    name[16..].copy_from_slice(&digest.0.to_be_bytes());
    name
}

// ===== Decoder =====

struct Decoder<'a>(&'a [u8]);

impl Decoder<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_be_bytes)
    }

    fn address(&mut self) -> Option<Address> {
        Some(Address {
            digest: Digest(self.u128()?),
            flight: FlightId(self.u128()?),
            seat: Seat(self.u128()?),
        })
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
            any::<u128>().prop_map(|value| AnswerBody::Stored(ValueId(value))),
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
            if let Some(message) = Message::read(&plain, None) {
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
        fn a_value_is_read_under_its_own_name_alone(value: u128, digest: u128, body in prop::collection::vec(any::<u8>(), 0..100)) {
            let (value, digest) = (ValueId(value), Digest(digest));
            let sealed = seal_value(value, digest, &body, &ours());
            prop_assert_eq!(open_value(value, digest, &sealed, &ours()), Some(Bytes::from(body)));
            prop_assert_eq!(open_value(ValueId(value.0 ^ 1), digest, &sealed, &ours()), None);
            prop_assert_eq!(open_value(value, Digest(digest.0 ^ 1), &sealed, &ours()), None);
        }
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
