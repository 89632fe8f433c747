//! Which upstream a URI belongs to, by rendezvous hashing: each upstream has a rank for each URI, by a hash of the two.
//!
//! Every proxy with the same upstreams chooses alike, in whatever order they are named. An upstream that is added or removed
//! moves only the URIs that are or were its own.

use super::Upstreams;

// ===== impl Upstreams =====

impl Upstreams {
    /// The upstreams for `uri`, its own first. Those that could not be reached a moment ago come last.
    pub(super) fn order(&self, uri: &str) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.origins.len()).collect();
        if order.len() > 1 {
            order.sort_by_cached_key(|&at| {
                let origin = &self.origins[at];
                let rank = hash(origin.name(), uri);
                (origin.is_resting(), std::cmp::Reverse(rank))
            });
        }
        order
    }
}

/// FNV-1a, and a mixer since its high bits are poor. Of no secret: all proxies have to agree.
fn hash(name: &str, uri: &str) -> u64 {
    let bytes = name.bytes().chain([0]).chain(uri.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The finalizer of SplitMix64.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner<'a>(names: &[&'a str], uri: &str) -> &'a str {
        names
            .iter()
            .max_by_key(|name| hash(name, uri))
            .expect("there is one")
    }

    #[test]
    fn uris_are_spread_evenly_and_a_lost_upstream_moves_its_own_alone() {
        let names = [
            "http://10.0.0.1:80",
            "http://10.0.0.2:80",
            "http://10.0.0.3:80",
        ];
        let mut counts = [0; 3];
        for n in 0..3_000 {
            let uri = format!("/page?n={n}");
            let own = owner(&names, &uri);
            counts[names.iter().position(|&name| name == own).unwrap()] += 1;
            if own != names[2] {
                assert_eq!(owner(&names[..2], &uri), own);
            }
        }
        assert!(
            counts.iter().all(|n| (900..=1_100).contains(n)),
            "{counts:?}"
        );
    }
}
