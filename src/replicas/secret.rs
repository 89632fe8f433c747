//! The shared secret, and what is derived from it.
//!
//! HMAC-SHA-256 derives a key for each purpose and namespace, so that none of them fits another, and digests the keys
//! of flights. (The hash behind `RequestKey` is faster, but it is not a standard MAC, and a digest that leaves the
//! process must withstand anybody who reads the store.) XChaCha20-Poly1305 encrypts and authenticates; its nonces are
//! long enough to be random for any number of messages.

use std::fmt;

use bytes::{Buf, Bytes};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::id::Digest;

const NONCE: usize = 24;

/// The minimum length of a secret, in bytes.
pub(crate) const LEAST: usize = 32;

/// Never shown.
#[derive(Clone)]
pub(crate) struct Secret(Hmac<Sha256>);

/// Encrypts and decrypts for one namespace.
#[derive(Clone)]
pub(crate) struct Sealer(XChaCha20Poly1305);

/// Digests keys for one namespace and purpose.
#[derive(Clone)]
pub(crate) struct Digester(Hmac<Sha256>);

/// Writes a key, part by part. Two keys are equal if all their parts are.
///
/// Parts are delimited by their lengths: `"ab", "c"` and `"a", "bc"` are different keys. Only a 128-bit hash is kept,
/// keyed with the secret that the replicas share.
pub struct KeyBytes(Hmac<Sha256>);

// ===== impl Secret =====

impl Secret {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(keyed(secret))
    }

    fn derive(&self, purpose: &str, namespace: &str) -> [u8; 32] {
        let mut bytes = KeyBytes(self.0.clone());
        for part in ["tower-singleflight 1", purpose, namespace] {
            bytes.part(part.as_bytes());
        }
        bytes.0.finalize().into_bytes().into()
    }

    pub(crate) fn sealer(&self, namespace: &str) -> Sealer {
        let key = self.derive("messages", namespace);
        Sealer(XChaCha20Poly1305::new(&key.into()))
    }

    pub(crate) fn digester(&self, purpose: &str, namespace: &str) -> Digester {
        Digester(keyed(&self.derive(purpose, namespace)))
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length")
}

// ===== impl Sealer =====

impl Sealer {
    /// Returns `version`, a nonce, and `plain` encrypted, with a tag over all of it and `context`.
    pub(crate) fn seal(&self, version: u8, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).expect("the operating system gives random numbers");
        let aad = &aad(version, context);
        let sealed = self.0.encrypt(&nonce.into(), Payload { msg: plain, aad });
        let sealed = sealed.expect("no message is 256 GiB long");
        [&[version], &nonce[..], &sealed].concat()
    }

    pub(crate) fn open(&self, version: u8, context: &[u8], sealed: &[u8]) -> Option<Bytes> {
        let (&found, rest) = sealed.split_first()?;
        let (nonce, msg) = rest.split_first_chunk::<NONCE>()?;
        if found != version {
            return None;
        }
        let aad = &aad(version, context);
        let plain = self.0.decrypt(&(*nonce).into(), Payload { msg, aad });
        plain.ok().map(Bytes::from)
    }
}

fn aad(version: u8, context: &[u8]) -> Vec<u8> {
    [&[version], context].concat()
}

// ===== impl Digester =====

impl Digester {
    /// `write` writes the parts.
    pub(crate) fn digest(&self, write: impl FnOnce(&mut KeyBytes)) -> Digest {
        let mut bytes = KeyBytes(self.0.clone());
        write(&mut bytes);
        let mac = bytes.0.finalize().into_bytes();
        Digest((&mac[..]).get_u128())
    }
}

// ===== impl KeyBytes =====

impl KeyBytes {
    /// Writes one more part of the key.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// Writes a piece of data that has its own lengths.
    #[cfg(feature = "http")]
    pub(crate) fn raw(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyBytes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digester: &Digester, parts: &[&str]) -> Digest {
        digester.digest(|bytes| {
            for part in parts {
                bytes.part(part.as_bytes());
            }
        })
    }

    #[test]
    fn parts_are_told_apart() {
        let digester = Secret::new(&[7; 32]).digester("group", "shop");
        let parts: [&[&str]; 5] = [&[], &[""], &["", ""], &["ab", "c"], &["a", "bc"]];
        for (at, one) in parts.iter().enumerate() {
            for other in &parts[..at] {
                assert_ne!(digest(&digester, one), digest(&digester, other));
            }
        }
    }

    #[test]
    fn secret_namespace_and_purpose_all_make_another_digest() {
        let secret = Secret::new(&[7; 32]);
        let all = [
            secret.digester("group", "shop"),
            secret.digester("group", "blog"),
            secret.digester("layer", "shop"),
            Secret::new(&[8; 32]).digester("group", "shop"),
            secret.digester("groups", "hop"),
        ];
        let mut digests: Vec<_> = all.iter().map(|one| digest(one, &["key"])).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), all.len());
        assert_eq!(digest(&all[0].clone(), &["key"]), digest(&all[0], &["key"]));
    }
}
