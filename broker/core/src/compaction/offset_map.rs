//! The last offset of every key (Kafka's `SkimpyOffsetMap`).

use crate::ids::Offset;

/// Bytes of an entry: the MD5 hash of a key and an offset.
const ENTRY: usize = 24;
/// The fewest entries that a map is made for.
const ENTRIES_MIN: usize = 16;

/// Hash and offset + 1; all zero if free. Zeroed memory is only touched when it is used.
type Slot = [u64; 3];

/// A hash table of fixed size that knows keys by their MD5 hash alone, without any collision handled.
#[derive(Debug)]
pub struct OffsetMap {
    slots: Vec<Slot>,
    len: usize,
    len_max: usize,
    latest_offset: Offset,
}

impl OffsetMap {
    /// A map of at most `bytes`, filled up to `load_factor`. It is made smaller if it need not hold
    /// more than `keys_expected`.
    pub fn new(bytes: usize, load_factor: f64, keys_expected: u64) -> Self {
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
            len: 0,
            // A free slot ends every search.
            len_max: len_allowed.min(slots - 1),
            latest_offset: -1,
        }
    }

    /// Notes that `key` is at `offset`; returns false, without having done so, if the map is full.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        if self.len >= self.len_max {
            return false;
        }
        let (index, is_new) = self.find(key);
        let [high, low] = hash(key);
        self.slots[index] = [high, low, offset as u64 + 1];
        self.len += usize::from(is_new);
        self.latest_offset = offset;
        true
    }

    /// The last offset that was noted of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        match self.find(key) {
            (_, true) => None,
            (index, false) => Some((self.slots[index][2] - 1) as Offset),
        }
    }

    /// Where the key is, or the free slot that is its, and whether that is free.
    fn find(&self, key: &[u8]) -> (usize, bool) {
        let [high, low] = hash(key);
        let mut index = (high % self.slots.len() as u64) as usize;
        loop {
            let slot = &self.slots[index];
            if slot[2] == 0 {
                return (index, true);
            }
            if slot[0] == high && slot[1] == low {
                return (index, false);
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

fn hash(key: &[u8]) -> [u64; 2] {
    let digest = u128::from_be_bytes(md5::compute(key).0);
    [(digest >> 64) as u64, digest as u64]
}
