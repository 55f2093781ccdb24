//! A hash of keys that nobody can find collisions of: SipHash-1-3 with 128 bits.

/// The function, with its secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHash {
    start: [u64; 4],
}

impl KeyHash {
    pub(super) fn new([first, second]: [u64; 2]) -> Self {
        Self {
            start: [
                first ^ 0x736f_6d65_7073_6575,
                // The last bits are what makes it the function of 128 bits.
                second ^ 0x646f_7261_6e64_6f6d ^ 0xee,
                first ^ 0x6c79_6765_6e65_7261,
                second ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    pub(super) fn of(self, bytes: &[u8]) -> [u64; 2] {
        let mut state = self.start;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            absorb(&mut state, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = bytes.len() as u8;
        absorb(&mut state, u64::from_le_bytes(last));
        state[2] ^= 0xee;
        let first = finish(&mut state);
        state[1] ^= 0xdd;
        [first, finish(&mut state)]
    }
}

#[inline]
fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    mix(state);
    state[0] ^= word;
}

#[inline]
fn finish(state: &mut [u64; 4]) -> u64 {
    for _ in 0..3 {
        mix(state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

/// One round.
#[inline]
fn mix([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The values are of an independent implementation that gives the published vectors of
    /// SipHash-2-4-128.
    #[test]
    fn the_function_is_siphash() {
        let hash = KeyHash::new([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        assert_eq!(hash.of(&[]), [0xbea5_8827_b2bc_7ee7, 0x0130_30dd_6adb_62fd]);
        let bytes: Vec<u8> = (0..15).collect();
        assert_eq!(
            hash.of(&bytes),
            [0x6c52_bdb2_0555_7ec1, 0x0901_7e1e_eccd_2129]
        );
    }

    #[test]
    fn keys_that_differ_have_hashes_that_do() {
        let hash = KeyHash::new([1, 2]);
        let mut seen = BTreeSet::new();
        for length in 0..40_usize {
            for place in 0..=length {
                let mut key = vec![0; length];
                if let Some(byte) = key.get_mut(place) {
                    *byte = 1;
                }
                let halves = hash.of(&key);
                assert!(halves[0] != halves[1]);
                assert!(seen.insert(halves), "{key:?}");
            }
        }
        for number in 0..20_000_u32 {
            assert!(seen.insert(hash.of(format!("key-{number}").as_bytes())));
        }
        assert_ne!(KeyHash::new([1, 3]).of(b"key"), hash.of(b"key"));
        // All bits take part.
        let ones = seen
            .iter()
            .fold([0; 2], |sum, [a, b]| [sum[0] | a, sum[1] | b]);
        let zeros = seen
            .iter()
            .fold([!0; 2], |sum, [a, b]| [sum[0] & a, sum[1] & b]);
        assert_eq!((ones, zeros), ([!0; 2], [0; 2]));
    }
}
