//! How a group's keys and values are written for other replicas.

use crate::replicas::KeyBytes;

/// How the keys and values of a [`Group`](crate::Group) are written as bytes, so that replicas can share them.
///
/// If the key is text or bytes, a pair of functions is enough: the first writes a value, the second reads it. For other
/// keys, add a function in front that writes the key. All of them run under no lock.
///
/// Replicas read each other's bytes only within one [`namespace`](crate::Replicas::namespace). Put your program's
/// version into it, and the format may change with each version.
///
/// ```
/// use tower_singleflight::{Codec, KeyBytes};
///
/// // Keys are `String`s; failures are not shared.
/// fn encode(value: &Result<String, String>) -> Option<Vec<u8>> {
///     value.as_ref().ok().map(|text| text.clone().into_bytes())
/// }
/// fn decode(bytes: &[u8]) -> Option<Result<String, String>> {
///     String::from_utf8(bytes.to_vec()).ok().map(Ok)
/// }
/// fn accepts<K, V>(_codec: impl Codec<K, V>) {}
/// accepts::<String, _>((encode, decode));
///
/// // Keys of another type.
/// fn key(key: &(u32, String), bytes: &mut KeyBytes) {
///     bytes.part(&key.0.to_be_bytes());
///     bytes.part(key.1.as_bytes());
/// }
/// accepts((key, encode, decode));
/// ```
pub trait Codec<K, V>: Send + Sync + 'static {
    /// Writes the parts of `key`. Different keys must have different parts.
    fn key(&self, key: &K, bytes: &mut KeyBytes);

    /// Writes a value, or returns `None` for one that must not be shared; each replica then makes its own.
    fn encode(&self, value: &V) -> Option<Vec<u8>>;

    /// Reads a value, or returns `None` if it can't; the replica then makes its own.
    fn decode(&self, bytes: &[u8]) -> Option<V>;
}

impl<K, V, E, D> Codec<K, V> for (E, D)
where
    K: AsRef<[u8]>,
    E: Fn(&V) -> Option<Vec<u8>> + Send + Sync + 'static,
    D: Fn(&[u8]) -> Option<V> + Send + Sync + 'static,
{
    fn key(&self, key: &K, bytes: &mut KeyBytes) {
        bytes.part(key.as_ref());
    }

    fn encode(&self, value: &V) -> Option<Vec<u8>> {
        self.0(value)
    }

    fn decode(&self, bytes: &[u8]) -> Option<V> {
        self.1(bytes)
    }
}

impl<K, V, F, E, D> Codec<K, V> for (F, E, D)
where
    F: Fn(&K, &mut KeyBytes) + Send + Sync + 'static,
    E: Fn(&V) -> Option<Vec<u8>> + Send + Sync + 'static,
    D: Fn(&[u8]) -> Option<V> + Send + Sync + 'static,
{
    fn key(&self, key: &K, bytes: &mut KeyBytes) {
        self.0(key, bytes);
    }

    fn encode(&self, value: &V) -> Option<Vec<u8>> {
        self.1(value)
    }

    fn decode(&self, bytes: &[u8]) -> Option<V> {
        self.2(bytes)
    }
}
