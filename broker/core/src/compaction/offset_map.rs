//! The last offset of every key (Kafka's `SkimpyOffsetMap`).

use super::key_hash::KeyHash;
use crate::ids::Offset;

/// Bytes of an entry: the hash of a key and an offset.
const ENTRY: usize = 24;
/// The fewest entries that a map is made for.
const ENTRIES_MIN: usize = 16;

/// Hash and offset + 1; all zero if free. Zeroed memory is only touched when it is used.
type Slot = [u64; 3];

/// What a map knows a key by.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyId([u64; 2]);

/// A hash table of fixed size that knows keys by a hash of 128 bits alone, without any collision
/// handled.
#[derive(Debug)]
pub struct OffsetMap {
    slots: Vec<Slot>,
    hash: KeyHash,
    len: usize,
    len_max: usize,
    latest_offset: Offset,
}

impl OffsetMap {
    /// A map of at most `bytes`, filled up to `load_factor`. It is made smaller if it need not hold
    /// more than `keys_expected`. The `seed` has to be random: nobody shall be able to find two keys
    /// that pass for one.
    pub fn new(bytes: usize, load_factor: f64, keys_expected: u64, seed: [u64; 2]) -> Self {
        let keys_expected = usize::try_from(keys_expected).unwrap_or(usize::MAX);
        let allowed = (bytes / ENTRY).max(ENTRIES_MIN);
        let load_factor = if load_factor > 0.0 {
            load_factor.min(1.0)
        } else {
            0.9
        };
        let len_allowed = ((allowed as f64 * load_factor) as usize).max(1);
        // Twice as many as are expected, so that lookups are short if there is memory for that.
        let slots = allowed.min(keys_expected.saturating_mul(2).max(ENTRIES_MIN));
        Self {
            slots: vec![[0; 3]; slots],
            hash: KeyHash::new(seed),
            len: 0,
            // A free slot ends every search.
            len_max: len_allowed.min(slots - 1),
            latest_offset: -1,
        }
    }

    /// What this map knows `key` by. Whoever asks for many keys does so first, and looks them all up
    /// in a row then: nearly each is a wait for memory, and such waits overlap if little is between.
    pub fn id_of(&self, key: &[u8]) -> KeyId {
        KeyId(self.hash.of(key))
    }

    /// Notes that a key is at `offset`; returns false, without having done so, if the map is full.
    pub fn put(&mut self, key: KeyId, offset: Offset) -> bool {
        if self.len >= self.len_max {
            return false;
        }
        let index = self.find(key);
        let slot = &mut self.slots[index];
        self.len += usize::from(slot[2] == 0);
        *slot = [key.0[0], key.0[1], offset as u64 + 1];
        self.latest_offset = offset;
        true
    }

    /// The last offset that was noted of a key.
    pub fn get(&self, key: KeyId) -> Option<Offset> {
        let slot = self.slots[self.find(key)];
        (slot[2] != 0).then(|| (slot[2] - 1) as Offset)
    }

    /// Where a key is, or the free slot that is its.
    #[expect(
        clippy::needless_bitwise_bool,
        reason = "a jump between the conditions would be guessed wrong for each new key"
    )]
    fn find(&self, KeyId([high, low]): KeyId) -> usize {
        // Which slot a hash belongs to, without a division: the share of the table that it says.
        let scaled = u128::from(high) * self.slots.len() as u128;
        let mut index = (scaled >> 64) as usize;
        loop {
            let slot = &self.slots[index];
            if (slot[2] == 0) | ((slot[0] == high) & (slot[1] == low)) {
                return index;
            }
            index += 1;
            if index == self.slots.len() {
                index = 0;
            }
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How full the map is, 0 to 1.
    pub fn utilization(&self) -> f64 {
        self.len as f64 / self.slots.len() as f64
    }

    /// Everything up to here was looked at; -1 if nothing was.
    pub fn latest_offset(&self) -> Offset {
        self.latest_offset
    }

    /// Notes that everything up to `offset` was looked at.
    pub fn set_latest_offset(&mut self, offset: Offset) {
        self.latest_offset = offset;
    }
}
